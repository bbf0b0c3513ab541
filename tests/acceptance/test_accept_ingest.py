"""Plug-ins at ingest, as a site installs them and a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live

MODULE = '''
def no_sleep(job):
    if job.jobspec["tasks"][0]["command"][0] == "sleep":
        return "nobody sleeps here"
'''
CONFIG = """
[ingest.validators]
plugins = ["feasibility", "no-sleep"]

[ingest.defaults]
plugins = ["attributes"]
attributes = { project = "fusion" }
"""


def test_a_site_s_own_validator(user: Any, place: Path) -> None:
    packages = user.folder / "site"
    (packages / "my_site-1.0.dist-info").mkdir(parents=True)
    (packages / "my_site.py").write_text(MODULE)
    info = packages / "my_site-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-site\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fluxkv.validators]\nno-sleep = my_site:no_sleep\n")
    (user.folder / "site.toml").write_text(CONFIG)
    there = {"PYTHONPATH": str(packages)}

    done = user("start", "--detach", "--state-dir", place, "--config", "site.toml", "--cores", "2")
    assert done.code == 1
    assert "config site.toml: validator no-sleep: is not installed here" in done.err
    words = ["start", "--detach", "--state-dir", place, "--config", "site.toml", "--cores", "2"]
    site = user.at(user.folder, user.ok(*words, **there).splitlines()[-1])
    done = site("submit", "sleep", "1", **there)
    assert (done.code, done.out, done.err) == (1, "", "fluxkv: validator no-sleep: nobody sleeps here\n")
    assert "validator feasibility: " in site("run", "-n9", "true", **there).err
    assert site("run", "true", **there).code == 0
    jobspec = json.loads(site.ok("job", "info", site.ok("job", "last").strip(), "jobspec"))
    assert jobspec["attributes"]["system"]["project"] == "fusion"
    assert "validator no-sleep: is not installed here" in site("submit", "true").err  # it would not know what to obey
    done = site("run", "--flags=novalidate", "sleep", "0", **there)
    assert done.code == 0
    (user.folder / "site.toml").write_text(CONFIG.replace("no-sleep", "require-time-limit"))
    site.ok("config", "reload")
    assert "validator require-time-limit: a job needs a time limit here: add -t" in site("submit", "true").err
    assert site("run", "-t1m", "sleep", "0").code == 0
    assert site("replay", "--diff", "live").code == 0
