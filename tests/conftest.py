"""What every test may use: real servers, skipped aloud where they are missing.

    @pytest.mark.server("vsftpd", "openssl")
    def test_a_file_arrives(programs):
        subprocess.Popen([programs["vsftpd"], ...])

A missing program skips the test, and the end of the run says which. With AFTERSEND_REQUIRE_ALL=1 it fails the test.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

REQUIRE_ALL = os.environ.get("AFTERSEND_REQUIRE_ALL") == "1"
# Daemons live in sbin, which is not on everybody's path.
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

missed: Counter[str] = Counter()


def found(names: tuple[str, ...]) -> dict[str, str]:
    """Programs by name, each with its path; those that are not here are left out."""
    paths = {name: shutil.which(name, path=SEARCHED) for name in names}
    return {name: path for name, path in paths.items() if path is not None}


def wanted(item: pytest.Item) -> tuple[str, ...]:
    """Programs that a test, its class or its module names."""
    return tuple(name for mark in item.iter_markers("server") for name in mark.args)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose server is missing, before any fixture runs."""
    names = wanted(item)
    missing = [name for name in names if name not in found(names)]
    if not missing:
        return
    missed.update(missing)
    reason = f"{', '.join(missing)} is not installed; `make servers` installs it"
    if REQUIRE_ALL:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what could not be shown."""
    if missed:
        terminalreporter.section("not shown for want of a server")
        for name, count in sorted(missed.items()):
            terminalreporter.line(f"{name}: {count} tests")
        terminalreporter.line("`make servers` installs what is missing (Debian, root)")


@pytest.fixture
def programs(request: pytest.FixtureRequest) -> dict[str, str]:
    """The programs that the test named in its `server` mark, each with its path."""
    return found(wanted(request.node))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where everything is required, a skip is a failure, whatever its reason."""
    report = (yield).get_result()
    if REQUIRE_ALL and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, though nothing may be: {report.longrepr[2]}"
