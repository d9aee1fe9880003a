"""The secrets that rules need, and where the user's file lets them go."""

from pathlib import Path

import pytest

from clawker_fw.errors import ExitCode, RefusedError
from clawker_fw.rules.paths import Form
from clawker_fw.rules.rule import Rule
from clawker_fw.rules.schema import RuleEntry
from clawker_fw.settings.secrets.declared import SecretsFile
from clawker_fw.settings.secrets.wanted import WantedSecret, wanted

PATH = Path("/home/me/secrets.yaml")
DECLARED = SecretsFile.model_validate(
    {
        "secrets": {
            "github": {"from": {"env": "A"}, "hosts": ["github.com", "api.github.com"]},
            "key": {"from": {"env": "B"}, "hosts": ["api.test:8443"], "header": "X-Key"},
        }
    }
)


def rule(dst: str, inject: object, **words: object) -> Rule:
    words = words or {"path_rules": [{"path": "/v1"}]}
    return RuleEntry.model_validate({"dst": dst, "inject": inject, **words}).rule("rules.yaml, line 3")


def test_each_is_needed_once_in_each_form() -> None:
    """A secret's form follows from the rule, otherwise from the header, and each form is needed once."""
    plain = RuleEntry.model_validate({"dst": "plain.test"}).rule()
    rules = [
        plain,
        rule("api.github.com", "github"),
        rule("github.com", "github", git={"o/r": "read"}),
        rule("github.com", {"secret": "github", "as": "basic"}),
        rule("api.test", "key", port=8443, path_rules=[{"path": "/v1"}]),
    ]
    found = wanted(rules, DECLARED, PATH)
    assert found == (
        WantedSecret("github", Form.BASIC),
        WantedSecret("github", Form.BEARER),
        WantedSecret("key", Form.RAW),
    )
    assert [each.identity for each in found] == ["github#basic", "github#bearer", "key#raw"]
    assert DECLARED.headers == {"github": "authorization", "key": "x-key"}
    assert wanted([plain], DECLARED, PATH) == ()


@pytest.mark.parametrize(
    ("dst", "inject", "port", "code", "hint"),
    [
        ("evil.test", "github", 443, "secret-not-for-host", "add evil.test to the `hosts` of `github` there"),
        ("github.com", "github", 8443, "secret-not-for-host", "add github.com:8443 to"),
        ("x.github.com", "github", 443, "secret-not-for-host", "add x.github.com to"),
        ("notgithub.com", "github", 443, "secret-not-for-host", "add notgithub.com to"),
        ("api.test", "key", 443, "secret-not-for-host", "add api.test to"),
        ("api.test", "none", 443, "secret-unknown", "`none: {from: {env: NAME}, hosts: [api.test]}`"),
    ],
)
def test_a_rule_sends_no_secret_anywhere_else(dst: str, inject: str, port: int, code: str, hint: str) -> None:
    """The user's file decides where a secret goes, whatever the settings say."""
    with pytest.raises(RefusedError) as caught:
        wanted([rule(dst, inject, port=port, path_rules=[{"path": "/v1"}])], DECLARED, PATH)
    assert (caught.value.code, caught.value.exit_code) == (code, ExitCode.REFUSED)
    assert "(rules.yaml, line 3)" in caught.value.message
    assert hint in caught.value.hint
