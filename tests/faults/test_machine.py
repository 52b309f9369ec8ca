"""What the nemeses do to this machine is what they say."""

import subprocess

from chaos import machine


def test_power_is_lost_for_a_mount_namespace_as_well() -> None:
    """Others that run on this machine make one, such as a pod's or a test's, and keep what was mounted then."""
    with machine.file_system(32) as mounted:
        unflushed = mounted / "unflushed"
        unflushed.write_text("never")
        command = ["unshare", "--mount", "sh", "-c", "echo; sleep 1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            other.stdout.readline()
            machine.lose_power(mounted)
            machine.mount_again(mounted)
            assert not unflushed.exists()
            mounted.joinpath("written").write_text("again")
