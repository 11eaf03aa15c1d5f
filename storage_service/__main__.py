"""``python -m storage_service`` is ``storage-service``."""

from storage_service.cli import main

main()
