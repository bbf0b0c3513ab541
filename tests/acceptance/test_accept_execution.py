"""How tasks run: environment, output files, labels, affinity, limits, whole process trees, several nodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live


def test_what_a_task_sees(site: Any) -> None:
    (site.folder / "there").mkdir()
    done = site(
        "run", "--cwd=there", "--env=MINE=1", "--env=-HIDDEN", "-n2", "-l", "sh", "-c",
        "pwd; echo $FLUX_JOB_ID $FLUX_TASK_RANK $FLUX_TASK_LOCAL_ID $FLUX_JOB_SIZE $FLUX_JOB_NNODES $MINE; "
        "echo ${HIDDEN-unset}; test -w $FLUX_JOB_TMPDIR && echo tmp; echo $FLUX_URI; umask",
        HIDDEN="x",
    )  # fmt: skip
    assert done.code == 0, done
    id = site.ok("job", "last").strip()
    for rank in "01":
        lines = [line.removeprefix(f"{rank}: ") for line in done.lines if line.startswith(f"{rank}: ")]
        assert lines[:5] == [str(site.folder / "there"), f"{id} {rank} {rank} 2 1 1", "unset", "tmp", site.uri]
    script = "echo $FLUX_JOB_TMPDIR; touch $FLUX_JOB_TMPDIR/x"
    assert not Path(site.ok("run", "sh", "-c", script).strip()).exists()  # it goes with the job


def test_a_missing_directory_is_told_and_survived(site: Any) -> None:
    done = site("run", "--cwd=/no/such/place", "pwd")
    assert (done.code, done.out) == (0, "/tmp\n")
    assert "cannot change to /no/such/place: No such file or directory" in done.err


def test_files_with_templates(site: Any) -> None:
    script = "echo out $FLUX_TASK_RANK; echo err >&2"
    site.ok("run", "-N2", "-n4", "--output=o.{{id}}.{{name}}.{{taskid}}", "--job-name=me", "sh", "-c", script)
    id = site.ok("job", "last").strip()
    for rank in range(4):
        assert (site.folder / f"o.{id}.me.{rank}").read_text() == f"out {rank}\nerr\n"
    site.ok("run", "-n2", "--output=a.{{taskid}}", "--error=e", "sh", "-c", script)
    assert (site.folder / "a.1").read_text() == "out 1\n"
    assert (site.folder / "e").read_text() == "err\nerr\n"
    done = site("run", "-n2", "--error=only.{{task.rank}}", "sh", "-c", script)
    assert sorted(done.lines) == ["out 0", "out 1"]
    assert (site.folder / "only.1").read_text() == "err\n"
    site.ok("run", "--output=d.{{id.dec}}", "true")
    (name,) = [one for one in os.listdir(site.folder) if one.startswith("d.")]
    assert name[2:].isdecimal()


@pytest.mark.parametrize("nodes", ["-N1", "-N2"])
def test_a_file_is_emptied_before_it_is_written(site: Any, nodes: str) -> None:
    for word in ("first", "second"):
        site.ok("run", nodes, "-n2", "--output=same", "sh", "-c", f"echo {word}")
        site.ok("run", nodes, "-n2", "-l", "--output=labelled", "sh", "-c", f"echo {word}")
    assert (site.folder / "same").read_text() == "second\n" * 2
    assert sorted((site.folder / "labelled").read_text().splitlines()) == ["0: second", "1: second"]
    site.ok("run", nodes, "-n2", "-o", "output.mode=append", "--output=same", "echo", "third")
    assert (site.folder / "same").read_text() == "second\n" * 2 + "third\n" * 2


def test_who_looks_in_hears_where_the_output_is_and_how_it_ended(site: Any) -> None:
    id = site.submit("--output=told.{{taskid}}", "-n12", "sh", "-c", "exit 3")
    done = site("job", "attach", id)
    assert (done.code, done.out) == (3, "")
    *files, ended = done.err.splitlines()
    assert f"fluxkv: {id}: stdout goes to {site.folder}/told.0" in files
    assert (len(files), ended) == (9, f"fluxkv: {id}: exit code 3"), "more than eight are not named one by one"
    assert site("job", "attach", "-q", id).err == ""
    assert site("job", "attach", site.submit("true")).err == ""


def test_labels(site: Any) -> None:
    done = site("run", "-n3", "-l", "sh", "-c", "echo a; echo b; printf c >&2")
    assert sorted(done.lines) == sorted(f"{rank}: {word}" for rank in range(3) for word in "ab")
    assert sorted(done.err.splitlines()) == [f"{rank}: c" for rank in range(3)]
    site.ok("run", "-n2", "-l", "--output=t.{{taskid}}", "sh", "-c", "echo x; printf y")
    assert (site.folder / "t.1").read_text() == "1: x\n1: y\n"


def test_much_output_is_whole_in_files_and_for_who_is_attached(site: Any) -> None:
    site.ok("run", "--output=big", "sh", "-c", "seq 1 300000")
    assert (site.folder / "big").stat().st_size == 1988895
    done = site("run", "sh", "-c", "head -c 6000000 /dev/zero | tr '\\0' x")
    assert done.code == 0
    assert len(done.out) == 6_000_000


def test_affinity(site: Any) -> None:
    for how in ("off", "per-task", "on"):
        assert site("run", "-n2", "-o", f"cpu-affinity={how}", "true").code == 0


def test_affinity_binds_on_an_instance_of_one_node(user: Any) -> None:
    mask = "grep Cpus_allowed_list /proc/self/status | cut -f2"
    whole = sorted(os.sched_getaffinity(0))
    script = (
        f'fluxkv run -c1 sh -c "{mask}"; fluxkv run -c1 -o cpu-affinity=off sh -c "{mask}"; '
        f'fluxkv run -n2 -l -o cpu-affinity=per-task sh -c "{mask}" | sort'
    )
    lines = user.ok("start", "sh", "-c", script).split("\n")
    assert len(lines) > 3
    if len(whole) > 1:
        from fluxkv.journal.idset import ids_of_mask, mask_of

        assert set(ids_of_mask(mask_of(lines[0]))) < set(whole)
        assert list(ids_of_mask(mask_of(lines[1]))) == whole
        assert lines[2].removeprefix("0: ") != lines[3].removeprefix("1: ")


def test_time_limit_warns_terms_and_kills(site: Any) -> None:
    script = "trap 'echo warned' USR2; trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    done = site("run", "-t", "1s", "--signal=USR2@0.5s", "sh", "-c", script)
    assert done.lines[:3] == ["ready", "warned", "term"]
    assert done.code == 3
    assert "type=timeout" in done.err
    stubborn = "trap '' TERM; while :; do sleep 0.05; done"
    killed = site("run", "-t", "0.2s", "-o", "kill-timeout=0.2", "sh", "-c", stubborn)
    assert killed.code == 137
    assert "type=timeout" in killed.err
    id = site.ok("job", "last").strip()
    assert site.ok("jobs", "-a", "--no-header", "--format", "{result}", id).strip() == "TIMEOUT"


def test_trees_end_whole(site: Any) -> None:
    script = "setsid sleep 98761 & (setsid nohup sleep 98762 >/dev/null 2>&1 &) ; sleep 98763"
    id = site.submit("sh", "-c", script)
    site.ok("job", "wait-event", "-q", "-t", "30s", id, "start")
    site.ok("cancel", id)
    site.ok("job", "wait-event", "-q", "-t", "30s", id, "clean")
    left = [pid for pid in site.alive("sleep") if "sleep\x009876" in _raw(pid)]
    assert left == []
    assert site("run", "sh", "-c", "setsid sleep 98764 & exit 5").code == 5  # what is left behind ends with the job
    assert [pid for pid in site.alive("sleep") if "sleep\x0098764" in _raw(pid)] == []


def _raw(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except OSError:
        return ""


def test_shapes_over_nodes(site: Any) -> None:
    tell = ["-l", "sh", "-c", "echo $FLUXKV_NODE_RANK $FLUX_JOB_SIZE $FLUX_JOB_NNODES"]
    done = site.ok("run", "-N2", "-n4", "-c2", *tell).split("\n")
    nodes = [line.split()[1] for line in sorted(done) if line]
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]
    assert len(set(site.ok("run", "-N3", *tell).split("\n"))) == 4
    whole = site.submit("-N2", "-x", "sleep", "600")
    site.ok("job", "wait-event", "-q", "-t", "30s", whole, "start")
    assert site("run", "-N1", "-n4", "true").code == 0
    blocked = site.submit("-N2", "true")
    assert "S" in site.ok("jobs", "--no-header", "--format", "{status_abbrev}", blocked)
    site.ok("cancel", whole)
    assert site("job", "wait", blocked, "--timeout=30s").code == 0


def test_gpus_and_memory(site: Any) -> None:
    done = site.ok("run", "-n2", "-N1", "-g1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert done.split() == ["0,1", "0,1"]
    split = ["-n2", "-N1", "-g1", "-o", "gpu-affinity=per-task"]
    each = site.ok("run", *split, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert sorted(each.split()) == ["0", "1"]
    assert site.ok("run", "-n3", "--memory-per-task=5000", "sh", "-c", "echo $FLUX_JOB_NNODES").split() == ["3"] * 3
    never = site("run", "--memory-per-task=9000", "true")
    assert never.code == 1
    assert "unsatisfiable" in never.err
    never = site("run", "-g3", "true")
    assert never.code == 1
    assert "unsatisfiable" in never.err


def test_constraints_and_inventory(user: Any) -> None:
    (user.folder / "site.toml").write_text("""
        [[resource.config]]
        hosts = "fast[0-1]"
        cores = "0-3"
        properties = ["ssd", "big"]
        [[resource.config]]
        hosts = "slow[0-1]"
        cores = "0-1"
        memory_mb = 1000
    """)
    script = """
        fluxkv resource list -n -o '{nnodes} {ncores}' 2>/dev/null || fluxkv resource list
        for what in ssd -ssd host:slow1 'ssd&host:fast[1-3]' rank:2; do
            fluxkv jobs -n >/dev/null; id=$(fluxkv submit --requires="$what" true); fluxkv job wait $id
            fluxkv jobs -a -n --format '{nodelist}' $id
        done
        fluxkv run --requires=gold true; echo $?
    """
    done = user("start", "--config", "site.toml", "sh", "-c", script)
    assert done.code == 0, done
    lines = done.lines
    first, second, third, fourth, fifth, last = lines[-6:]
    assert first.startswith("fast")
    assert second.startswith("slow")
    assert (third, fourth, fifth) == ("slow1", "fast1", "slow0")
    assert last == "1"
    assert "unsatisfiable" in done.err


def test_pretended_jobs(site: Any) -> None:
    done = site("run", "--setattr=system.exec.test.run_duration=0.1s", "no-such-command")
    assert (done.code, done.out, done.err) == (0, "", "")
    failed = site("run", "--setattr=exec.test.run_duration=0.1s", "--setattr=exec.test.wait_status=256", "true")
    assert failed.code == 1


def test_a_thousand_fake_nodes(user: Any) -> None:
    script = "fluxkv submit --quiet --wait --cc=1-2000 -n4 true && fluxkv replay --diff live && fluxkv status"
    done = user("start", "--fake", "-s", "1000", "--cores", "64", "sh", "-c", script)
    assert done.code == 0, done
    assert "2000" in done.out


def test_children(user: Any) -> None:
    script = """
        fluxkv run -N2 fluxkv start sh -c '
            fluxkv run -N2 -l sh -c "echo \\$FLUXKV_NODE_RANK" | sort; fluxkv run hostname >/dev/null'
        id=$(fluxkv job last)
        fluxkv jobs -a -n --uri "$FLUXKV_URI#/$id" --format 'later {ntasks} {status_abbrev}'
        fluxkv run fluxkv start fluxkv run fluxkv start fluxkv run sh -c 'echo deep; exit 6'; echo code $?
        fluxkv run fluxkv start sh -c 'exit 3'; echo code $?
    """
    done = user("start", "-s", "2", "--cores", "4", "sh", "-c", script)
    assert done.code == 0, done
    assert done.lines[:2] == ["0: 0", "1: 1"], done
    assert "deep" in done.lines
    assert "code 6" in done.lines
    assert "code 3" in done.lines
    assert sorted(line for line in done.lines if line.startswith("later")) == ["later 1 CD", "later 2 CD"]
    assert user.alive(str(user.home / "fluxkv")) == []
    (folder,) = (user.home / "fluxkv").iterdir()
    words = ["jobs", "-a", "-n", "--format", "{ntasks} {status_abbrev}", "--state-dir"]
    ends = [sorted(user.ok(*words, child).splitlines()) for child in (folder / "ns").iterdir()]
    assert ["1 CD", "2 CD"] in ends


def test_standard_input_reaches_every_task_whole(site: Any) -> None:
    given = "0123456789" * 30_000
    slow = "if [ $FLUX_TASK_RANK = 1 ]; then sleep 0.3; fi; wc -c"
    done = site("run", "-n2", "-l", "sh", "-c", slow, given=given)
    assert sorted(done.out.splitlines()) == ["0: 300000", "1: 300000"]
    deaf = "if [ $FLUX_TASK_RANK = 1 ]; then exit 0; fi; wc -c"
    assert site("run", "-n2", "-l", "sh", "-c", deaf, given=given).out == "0: 300000\n"


def test_standard_input_reaches_every_node_or_the_tasks_that_are_named(site: Any) -> None:
    done = site("run", "-N2", "-n4", "-l", "wc", "-c", given="x" * 200_000)
    assert sorted(done.out.splitlines()) == [f"{rank}: 200000" for rank in range(4)]
    done = site("run", "-N2", "-n4", "-l", "--input=1-2", "wc", "-c", given="hello")
    assert sorted(done.out.splitlines()) == ["0: 0", "1: 5", "2: 5", "3: 0"]
    done = site("run", "-N2", "-n2", "-l", "--input=7", "wc", "-c", given="x" * 200_000)
    assert sorted(done.out.splitlines()) == ["0: 0", "1: 0"]
    wrong = site("run", "--input=2-1", "cat", given="x")
    assert wrong.code == 2
    assert "--input" in wrong.err
