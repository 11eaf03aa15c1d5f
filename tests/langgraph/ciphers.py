"""A cipher for tests: nobody reads what it made by looking, and anybody by knowing how."""

from __future__ import annotations


class Mask:
    """Turns every bit around."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        """Hide bytes."""
        return "mask", bytes(255 - byte for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """Show them again."""
        assert ciphername == "mask"
        return bytes(255 - byte for byte in ciphertext)
