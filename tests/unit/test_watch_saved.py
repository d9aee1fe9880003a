"""How a watcher notices saved files."""

from pathlib import Path

from clawker_fw.watch.saved import SavedFiles


def test_a_change_counts_once_when_nobody_writes_any_more(tmp_path: Path) -> None:
    """A change counts once, after writing has stopped, however the file is replaced; other files are no change."""
    rules, other, link = tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "link.yaml"
    rules.write_text("1")
    other.write_text("22")
    link.symlink_to(rules)
    files, now = [rules, link], 0.0
    saved = SavedFiles(lambda: files, lambda: now, 1.0)

    def looks(*moments: float) -> list[bool]:
        nonlocal now
        found = []
        for moment in moments:
            now = moment
            found.append(saved.changed())
        return found

    assert looks(0, 1, 2) == [False] * 3
    rules.write_text("333")
    assert looks(3, 3.5) == [False] * 2
    rules.write_text("4444")
    assert looks(4, 4.5, 5, 5.5) == [False, False, True, False]
    fresh = tmp_path / "fresh"
    fresh.symlink_to(other)
    fresh.rename(link)
    assert looks(6, 7, 8) == [False, True, False]
    rules.unlink()
    assert looks(9, 10, 11) == [False, True, False]
    files.append(other)
    assert looks(12, 13) == [False] * 2
    rules.write_text("1")
    assert looks(14, 15, 16) == [False, True, False]
