"""What is in the image: packages that are real transactions, services that run, stacks that take effect."""

import tomllib

import pytest
from anneal_lab import Lab, LabError, recipe, rpms

from .conftest import Remote

# What the STIG profile of the content wants there, and what it wants gone, as far as Debian can back it.
WANTED_BY_RULES = [
    *("aide", "fapolicyd", "firewalld", "gnutls-utils", "libreswan", "opensc", "openssl-pkcs11", "pcsc-lite"),
    *("policycoreutils", "policycoreutils-python-utils", "rng-tools", "rsyslog-gnutls", "tmux", "usbguard"),
]
UNWANTED_BY_RULES = [
    *("gssproxy", "nfs-utils", "telnet-server", "tftp-server", "tuned", "vsftpd", "xorg-x11-server-common"),
]
RUNNING = ["sshd", "chronyd", "crond", "rsyslog", "polkit", "dbus"]


@pytest.fixture
def state(machine: str, remote: Remote) -> str:
    return remote(machine, "rpm -qa --qf '%{NAME}\\n'")


def test_the_rpm_database_names_every_base_package(state: str) -> None:
    base = tomllib.loads((recipe.folder("rpms") / "base.toml").read_text())
    assert set(base) <= set(state.split())


def test_only_what_the_recipe_says_is_installed_from_the_repository(state: str) -> None:
    installed = set(state.split())
    for entry in rpms.repository_entries():
        assert (entry.name in installed) is entry.installed, entry.name


def test_wanted_packages_install_and_unwanted_ones_go_by_dnf(machine: str, remote: Remote) -> None:
    remote(machine, f"sudo dnf -q -y install {' '.join(WANTED_BY_RULES)}")
    remote(machine, f"sudo dnf -q -y remove {' '.join(UNWANTED_BY_RULES)}")
    after = set(remote(machine, "rpm -qa --qf '%{NAME}\\n'").split())
    assert set(WANTED_BY_RULES) <= after
    assert not set(UNWANTED_BY_RULES) & after
    assert remote(machine, "ls /usr/sbin/vsftpd /usr/sbin/in.tftpd 2>&1 || true").count("No such file") == 2


@pytest.mark.parametrize(
    ("package", "unit"), [("firewalld", "firewalld"), ("pcsc-lite", "pcscd.socket"), ("rng-tools", "rngd")]
)
def test_a_service_of_the_repository_really_starts(machine: str, remote: Remote, package: str, unit: str) -> None:
    remote(machine, f"sudo dnf -q -y install {package} && sudo systemctl enable --now {unit} && sleep 1")
    assert remote(machine, f"systemctl is-active {unit}").strip() == "active"
    assert remote(machine, "true") == ""


def test_firewalld_answers_and_lets_ssh_in(machine: str, remote: Remote) -> None:
    remote(machine, "sudo dnf -q -y install firewalld && sudo systemctl enable --now firewalld")
    assert "ssh" in remote(machine, "sudo firewall-cmd --list-services")


def test_the_base_services_run_and_nothing_has_failed_but_auditd(machine: str, remote: Remote) -> None:
    remote(machine, "sudo systemctl is-system-running --wait >/dev/null || true")
    assert remote(machine, f"systemctl is-active {' '.join(RUNNING)}").split() == ["active"] * len(RUNNING)
    failed = remote(machine, "systemctl --failed --plain --no-legend").splitlines()
    assert [line.split()[0] for line in failed] in ([], ["auditd.service"])


def test_an_unsigned_package_is_refused(machine: str, remote: Remote) -> None:
    line = (
        "sudo sh -c 'cp /opt/anneal-lab/repo/tmux-*.rpm /root/x.rpm && rpmsign --delsign /root/x.rpm >/dev/null 2>&1;"
        " dnf -y --setopt=localpkg_gpgcheck=1 install /root/x.rpm' 2>&1 || true"
    )
    assert "not signed" in remote(machine, line)


def test_the_pam_stacks_take_effect(machine: str, remote: Remote) -> None:
    """What is written to system-auth decides over a real login: the file is not for show."""
    remote(machine, "sudo useradd probe && sudo -n -u probe true")
    remote(machine, "sudo sed -i '1i account required pam_deny.so' /etc/pam.d/system-auth")
    with pytest.raises(LabError):
        remote(machine, "sudo -n -u probe true")


def test_password_rules_are_obeyed_by_passwd(machine: str, remote: Remote) -> None:
    remote(machine, "sudo sh -c 'useradd probe; echo minlen = 20 >> /etc/security/pwquality.conf'")
    remote(machine, "echo probe:old | sudo chpasswd")
    change = "printf 'old\\nTr0ub4dor&3x\\nTr0ub4dor&3x\\n' | sudo -u probe passwd 2>&1 || true"
    assert "BAD PASSWORD" in remote(machine, change)


def test_messages_and_logins_reach_the_files_that_el_names(machine: str, remote: Remote) -> None:
    remote(machine, "logger -p user.info anneal-probe && sleep 1")
    assert "anneal-probe" in remote(machine, "sudo cat /var/log/messages")
    assert "sudo" in remote(machine, "sudo cat /var/log/secure")


def test_net_settings_can_be_set_and_the_kernels_own_cannot(machine: str, remote: Remote) -> None:
    remote(machine, "sudo sysctl -q -w net.ipv4.conf.all.rp_filter=1")
    assert remote(machine, "sudo sysctl -w kernel.kptr_restrict=2 2>&1 || true").count("ermission denied") == 1


def test_a_recipe_change_changes_the_hash(lab: Lab) -> None:
    assert recipe.recipe_hash("a") == recipe.recipe_hash("a")
    assert recipe.recipe_hash("a") != recipe.recipe_hash("b")
    assert lab.image_id() is not None
