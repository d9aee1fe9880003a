package hot

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/must"
)

// moment returns a stopped clock.
func moment(second int64) func() time.Time { return func() time.Time { return time.Unix(second, 0) } }

// newEnding returns a volume in which set 1 is live, and becomes set 2 at second 100 and set 3 at second 200. The
// routes stay those of set 1 until the second end. It also returns the files at each of the three times.
func newEnding(t *testing.T) (string, []must.Tree) {
	t.Helper()
	root := t.TempDir()
	sets, lives, names := []must.Tree{}, []map[string]string{}, []string{"1", "2", "3"}
	for _, name := range names {
		want, files := Set(name, Routes, Listeners)
		if name == "2" {
			files[Routes] = Content("1", Routes)
			want.Live["routes"] = DigestOf([]byte(files[Routes]))
		}
		sets, lives = append(sets, files), append(lives, want.Live)
	}
	texts := []string{}
	for number := 1; number < len(sets); number++ {
		end := End{int64(100 * number), map[string]EndedFile{}, lives[number], json.RawMessage(fmt.Sprintf(`{"count":%d}`, number))}
		for path, after := range sets[number] {
			before := sets[number-1][path]
			if before == after {
				continue
			}
			at := strings.Index(before, "set ") + len("set ")
			end.Files[path] = EndedFile{DigestOf([]byte(after)), []Part{{at, at + 1, names[number]}}}
		}
		text := must.Get[[]byte](t)(json.Marshal(end))
		texts = append(texts, string(text))
	}
	for number := range sets {
		sets[number][endsPath] = `{"ends":[` + strings.Join(texts[number:], ",") + `]}`
	}
	committed := Commit{Version: Unversioned, Live: lives[0], Seconds: 5}
	for _, path := range []string{endsPath, Routes, Listeners} {
		committed.Files = append(committed.Files, HotFile{Path: path, Digest: DigestOf([]byte(sets[0][path]))})
	}
	must.Write(t, filepath.Join(root, "hot"), sets[0])
	WriteRecord(t, RecordPath(root), committed)
	return root, sets
}

// At each end the files become those rendered for that time, verified like any others, with their record and
// copies. Of several past ends, the last one counts.
func TestRulesEnd(t *testing.T) {
	root, sets := newEnding(t)
	program := StartReader(root)
	for number, second := range []int64{99, 100, 150, 200, 1000} {
		must.Succeed(t, Volume{root, Resources, program, moment(second)}.EndRules())
		want := sets[[]int{0, 1, 1, 2, 2}[number]]
		expectSet(t, root, want)
		if second >= 100 {
			expectGood(t, root, want)
			committed, err := ReadRecord(RecordPath(root))
			if rules := fmt.Sprintf(`{"count":%d}`, min(second/100, 2)); err != nil || string(committed.Rules) != rules {
				t.Errorf("the record has the rules %s (%v)", committed.Rules, err)
			}
			if got, err := program.Live(Resources); err != nil || !maps.Equal(got, committed.Live) {
				t.Errorf("live is %v, on record %v (%v)", got, committed.Live, err)
			}
		}
		expectAbsent(t, root, "ended", "good.new", "restore", "restore.new")
	}
	root, sets = newEnding(t)
	must.Succeed(t, Volume{root, Resources, StartReader(root), moment(300)}.EndRules())
	expectSet(t, root, sets[2])
}

// A program that rejects the files keeps the old ones, and the end is retried.
func TestAnEndThatIsRejected(t *testing.T) {
	root, sets := newEnding(t)
	program := StartReader(root)
	program.Refuses = []string{sets[1][Listeners]}
	err := Volume{root, Resources, program, moment(100)}.EndRules()
	if err == nil || !strings.Contains(err.Error(), "rejected by the test") {
		t.Errorf("got %v", err)
	}
	expectSet(t, root, sets[0])
	program.Refuses = nil
	must.Succeed(t, Volume{root, Resources, program, moment(100)}.EndRules())
	expectSet(t, root, sets[1])
}

// No start brings back an expired rule: neither from the files in place, nor from their copy after a killed
// commit.
func TestNoStartBringsBackWhatHasEnded(t *testing.T) {
	for name, spoil := range map[string]func(root string){
		"as it was": func(string) {},
		"a commit that died": func(root string) {
			must.Write(t, filepath.Join(root, "hot"), must.Tree{Routes: "half"})
		},
		"a foreign good copy": func(root string) {
			must.Write(t, filepath.Join(goodFolder(root), "hot"), must.Tree{"more": "x"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, sets := newEnding(t)
			must.Succeed(t, StartGood(root))
			spoil(root)
			for range 2 {
				must.Succeed(t, StartGood(root))
				must.Succeed(t, EndAtStart(root, time.Unix(150, 0)))
				expectSet(t, root, sets[1])
				expectGood(t, root, sets[1])
				expectFinished(t, root)
			}
		})
	}
}

// Parts outside a file, and files with a wrong digest, change nothing.
func TestEndsThatFitNothing(t *testing.T) {
	for name, spoil := range map[string]func(string) string{
		"another digest": func(text string) string { return strings.ReplaceAll(text, `"sha256":"`, `"sha256":"0`) },
		"another place":  func(text string) string { return strings.ReplaceAll(text, `"to":`, `"to":100`) },
		"another file":   func(text string) string { return strings.ReplaceAll(text, Listeners, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			root, sets := newEnding(t)
			sets[0][endsPath] = spoil(sets[0][endsPath])
			must.Write(t, filepath.Join(root, "hot"), sets[0])
			committed := must.Get[Commit](t)(ReadRecord(RecordPath(root)))
			committed.Files[0].Digest = DigestOf([]byte(sets[0][endsPath]))
			WriteRecord(t, RecordPath(root), committed)
			if err := (Volume{root, Resources, StartReader(root), moment(100)}.EndRules()); err == nil {
				t.Error("it was taken")
			}
			expectSet(t, root, sets[0])
		})
	}
}

// The supervisor knows the next end, and notices a new one.
func TestTheNextEnd(t *testing.T) {
	root, sets := newEnding(t)
	clock := NewDeadline(root)
	look := func(second float64, due bool, wait time.Duration) {
		t.Helper()
		at := time.UnixMilli(int64(second * 1000))
		if isDue, left := clock.Due(at); isDue != due || left != wait {
			t.Errorf("at %v, due is %v and the next look after %v", second, isDue, left)
		}
	}
	look(50, false, endsRead)
	look(99.75, false, 250*time.Millisecond)
	look(100, true, EndAgain)
	must.Write(t, filepath.Join(root, "hot"), must.Tree{endsPath: sets[1][endsPath]})
	look(100, false, endsRead)
	must.Write(t, filepath.Join(root, "hot"), must.Tree{endsPath: sets[2][endsPath]})
	look(1000, false, endsRead)
}
