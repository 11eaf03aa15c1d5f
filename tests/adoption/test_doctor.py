"""What ``doctor`` says: what a migration repairs is no trouble, and what the service wrote on purpose is nothing to report."""

from __future__ import annotations

from storage_service.store.postgres.doctor import examine
from storage_service.store.postgres.migrate import migrate
from tests.adoption import runtimes
from tests.adoption.runtimes import statements


async def severities(url: str) -> dict[str, str]:
    return {finding.code: finding.severity for finding in (await examine(url)).findings}


async def test_before_a_migration_what_it_repairs_is_told_apart(legacy: str) -> None:
    before = await examine(legacy)
    repairs = {finding.code for finding in before.findings if finding.severity == "repair"}
    assert repairs >= {
        "double_encoded_threads",
        "double_encoded_runs",
        "runs_inherit_owner",
        "namespace_spelling",
        "namespace_clash",
        "parent_json_null",
        "table_not_secured",
    }
    # Whose owner a migration will find is not called ownerless: the same rows are named before and after.
    ownerless = {finding.code: finding.ids for finding in before.findings if finding.code.startswith("ownerless")}
    assert ownerless == {
        "ownerless_assistants": (runtimes.TS_ASSISTANT,),
        "ownerless_runs": (runtimes.TS_RUN_ORPHAN,),
    }
    assert before.lines()[-1].startswith("what is marked repair, `storage-service migrate` does by itself")
    await migrate(legacy)
    after = await examine(legacy)
    assert not repairs & {finding.code for finding in after.findings}
    assert not [line for line in after.lines() if "repair" in line]
    warned = {finding.code for finding in before.findings if finding.severity == "warning"}
    assert warned <= {finding.code for finding in after.findings}, "what a migration leaves is told before it, too"


async def test_strings_that_the_service_stored_on_purpose_are_not_counted(legacy: str) -> None:
    await migrate(legacy)
    statements(
        legacy,
        "SET storage_service.writer = 'on'",
        """INSERT INTO langgraph_server.threads (id, "values", interrupts) VALUES ('meant', '"[1]"', '"{}"')""",
        """INSERT INTO langgraph_server.thread_states (thread_id, checkpoint_id, "values", interrupts, by_service)
            VALUES ('meant', '1', '"[1]"', '"{}"', true)""",
    )
    assert not [code for code in await severities(legacy) if code.startswith(("double_encoded", "not_an_object"))]


async def test_what_a_runtime_encoded_twice_while_the_triggers_were_gone(legacy: str) -> None:
    await migrate(legacy)
    statements(
        legacy,
        "DROP TRIGGER normalise ON langgraph_server.runs",
        "DROP TRIGGER normalise ON langgraph_server.thread_states",
        """INSERT INTO langgraph_server.runs (id, kwargs) VALUES ('twice', '"{}"'), ('broken', '"{oops"')""",
        """INSERT INTO langgraph_server.threads (id) VALUES ('t')""",
        """INSERT INTO langgraph_server.thread_states (thread_id, checkpoint_id, "values") VALUES ('t', '1', '"[1]"')""",
    )
    report = await examine(legacy)
    twice, states, broken = (
        report.find(code) for code in ("double_encoded_runs", "double_encoded_thread_states", "not_an_object_runs")
    )
    assert twice
    assert (twice.severity, twice.ids) == ("warning", ("twice",))
    assert states
    assert states.count == 1
    assert broken
    assert broken.ids == ("broken",)


async def test_runs_without_a_thread_are_told_with_a_remedy(legacy: str) -> None:
    (line,) = [line for line in (await examine(legacy)).lines() if "runs_without_thread" in line]
    assert line == (
        "warning runs_without_thread: runs whose thread is not there; their owner can read them, and delete them with DeleteRun"
        f" [1: {runtimes.TS_RUN_ORPHAN}]"
    )
