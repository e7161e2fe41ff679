from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from traitlets.config import Config

from hub.cli import main
from hub.oidc import Oidc, SettingsError, kept_crypt_key

LEAST = {
    "OIDC_ISSUER": "https://auth.example.org/application/o/jupyterhub/",
    "OIDC_CLIENT_ID": "hub",
    "OIDC_CLIENT_SECRET": "a secret",
    "OIDC_CALLBACK_URL": "https://hub.example.org/hub/oauth_callback",
}
THREE = {
    "OIDC_AUTHORIZE_URL": "https://auth.example.org/a",
    "OIDC_TOKEN_URL": "https://auth.example.org/t",
    "OIDC_USERINFO_URL": "https://auth.example.org/u",
}


def test_the_least_that_must_be_said_gives_what_authentik_needs() -> None:
    settings = Oidc.from_environ({**LEAST, "OIDC_SCOPE": "", "HOME": "/"})
    assert settings.scope == ("openid", "profile", "email", "offline_access")
    assert settings.groups_key == "oauth_user.groups"
    assert settings.username_claim == "preferred_username"
    assert settings.refresh_age_s == 300


def test_three_addresses_stand_for_the_issuer() -> None:
    without = {name: value for name, value in LEAST.items() if name != "OIDC_ISSUER"}
    assert Oidc.from_environ({**without, **THREE}).userinfo_url == "https://auth.example.org/u"
    with pytest.raises(SettingsError, match="OIDC_ISSUER is missing, or all of OIDC_AUTHORIZE_URL"):
        Oidc.from_environ({**without, "OIDC_TOKEN_URL": THREE["OIDC_TOKEN_URL"]})


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Oidc.from_environ(
            {"OIDC_ISSUER": "auth.example.org", "OIDC_REFRESH_AGE_S": "0", "OIDC_SCOPE": "profile",
             "JUPYTERHUB_CRYPT_KEY": "short"}
        )  # fmt: skip
    named = [problem.split()[0] for problem in caught.value.problems]
    assert named == [
        "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET", "OIDC_CALLBACK_URL", "OIDC_ISSUER", "OIDC_REFRESH_AGE_S", "OIDC_SCOPE",
        "JUPYTERHUB_CRYPT_KEY",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "address", ["x", "ftp://a/", "https://", "https://a b/", "https://a:x/", "https://a\n/", "//a"]
)
def test_an_issuer_is_an_address(address: str) -> None:
    with pytest.raises(SettingsError, match=r"OIDC_ISSUER (must|is not)"):
        Oidc.from_environ({**LEAST, "OIDC_ISSUER": address})


@pytest.mark.parametrize("age", ["-1", "0", "1.5", "x", "9" * 5000, "86401", "²"])
def test_the_refresh_age_is_a_number_of_seconds_and_never_0(age: str) -> None:
    with pytest.raises(SettingsError, match="OIDC_REFRESH_AGE_S"):
        Oidc.from_environ({**LEAST, "OIDC_REFRESH_AGE_S": age})


def test_secrets_are_in_no_repr_and_not_left_in_the_environment() -> None:
    environ = {**LEAST, "JUPYTERHUB_CRYPT_KEY": "0" * 64 + ";" + "1" * 64}
    settings = Oidc.take_from(environ)
    assert settings.crypt_keys == ("0" * 64, "1" * 64)
    assert "a secret" not in repr(settings)
    assert "0000" not in repr(settings)
    assert "OIDC_CLIENT_SECRET" not in environ
    assert "JUPYTERHUB_CRYPT_KEY" not in environ


def test_the_settings_are_jupyterhubs_configuration() -> None:
    c = Config()
    Oidc.from_environ(LEAST).configure(c, "policy.yaml")
    assert c.JupyterHub.authenticator_class == "hub.login.OidcAuthenticator"
    assert c.OidcAuthenticator.policy_file == "policy.yaml"
    assert c.OidcAuthenticator.manage_groups is True
    assert c.OidcAuthenticator.auth_state_groups_key == "oauth_user.groups"
    assert c.OidcAuthenticator.auth_refresh_age == 300
    assert "CryptKeeper" not in c, "the chart brings its own key"


def test_the_crypt_key_is_made_once_and_for_this_account_alone(tmp_path: Path) -> None:
    path = tmp_path / "crypt_key"
    key = kept_crypt_key(str(path))
    assert kept_crypt_key(str(path)) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["crypt_key"]
    for damaged in ("", key[:-1], "x" * 64, "ü"):
        path.write_text(damaged)
        with pytest.raises(SettingsError):
            kept_crypt_key(str(path))
        assert path.read_text() == damaged, "nothing is thrown away"
    with pytest.raises(SettingsError):
        kept_crypt_key(str(tmp_path / "missing" / "crypt_key"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LOGIN": "oidc"}, ["OIDC_CLIENT_ID is missing", "OIDC_CLIENT_SECRET is missing", "OIDC_ISSUER is missing"]),
        ({"LOGIN": "ldap"}, ["LOGIN must be demo or oidc"]),
    ],
)
def test_a_hub_that_does_not_know_how_to_log_in_is_not_started(
    tmp_path: Path, settings: dict[str, str], said: list[str]
) -> None:
    environ = dict.fromkeys((*LEAST, *THREE), "") | settings
    result = CliRunner().invoke(main, ["up", "--data", str(tmp_path / "data")], env=environ)
    assert result.exit_code == 2
    for line in said:
        assert f"cannot start: {line}" in result.output
