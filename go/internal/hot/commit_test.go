package hot

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/users"
	"clawker-fw/internal/volume"
)

// sentTo returns the path of the tar for a commit, outside any small disk.
func sentTo(root string) string {
	return filepath.Join(os.TempDir(), "sent"+strings.ReplaceAll(root, "/", "-"))
}

// send writes the tar for a commit.
func send(t *testing.T, root string, want Commit, files must.Tree) {
	t.Helper()
	var content bytes.Buffer
	archive := tar.NewWriter(&content)
	add := func(path, text string) {
		header := tar.Header{Name: "stage/" + path, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o644}
		if path == "hot/"+secret {
			header.Mode, header.Uid, header.Gid = 0o440, users.Readers, users.Readers
		}
		must.Succeed(t, archive.WriteHeader(&header))
		must.Get[int](t)(archive.Write([]byte(text)))
	}
	add("commit.json", string(must.Get[[]byte](t)(json.Marshal(want))))
	for path, text := range files {
		add("hot/"+path, text)
	}
	must.Succeed(t, archive.Close())
	must.Put(t, sentTo(root), content.String())
	t.Cleanup(func() { os.Remove(sentTo(root)) })
}

// commitSent applies the tar.
func (v Volume) commitSent(taken func()) (Result, error) {
	sent, err := os.ReadFile(sentTo(v.Root))
	if err != nil {
		return Result{}, err
	}
	return v.Commit(int64(len(sent)), bytes.NewReader(sent), taken)
}

// commit applies the tar, by the program's clock.
func commit(root string, program *Reader) (Result, error) {
	return Volume{root, Resources, program, program.Clock}.commitSent(func() {})
}

// mustCommit applies the tar, which the program must accept.
func mustCommit(t *testing.T, root string) {
	t.Helper()
	if result, err := commit(root, StartReader(root)); err != nil || !result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
}

// unversioned returns files without their versions.
func unversioned(files must.Tree) must.Tree {
	plain := must.Tree{}
	for path, text := range files {
		plain[path] = string(WithVersion([]byte(text), Unversioned))
	}
	return plain
}

// expectSet fails unless hot/ has exactly these files, under a new version that the record has too.
func expectSet(t *testing.T, root string, want must.Tree, older ...string) {
	t.Helper()
	got := readTree(t, filepath.Join(root, "hot"))
	if !maps.Equal(unversioned(got), want) {
		t.Errorf("hot has %v, expected %v", got, want)
	}
	committed, err := ReadRecord(RecordPath(root))
	if err != nil {
		t.Error(err)
	}
	if slices.Contains(older, committed.Version) {
		t.Errorf("version %s was used before", committed.Version)
	}
	for path, text := range got {
		if version := VersionOf([]byte(text)); version != "" && version != committed.Version {
			t.Errorf("%s is of version %s, the record of %s", path, version, committed.Version)
		}
	}
	if err := intact(filepath.Join(root, "hot"), RecordPath(root)); err != nil {
		t.Errorf("the record does not fit: %v", err)
	}
}

// expectGood fails unless the verified set has exactly these files, as in the record.
func expectGood(t *testing.T, root string, want must.Tree) {
	t.Helper()
	if got := unversioned(readTree(t, filepath.Join(goodFolder(root), "hot"))); !maps.Equal(got, want) {
		t.Errorf("good has %v, expected %v", got, want)
	}
	if err := intact(goodTree(root), RecordPath(root)); err != nil {
		t.Errorf("the record does not fit it: %v", err)
	}
}

// intact fails unless a folder fits a record.
func intact(folder, path string) error {
	committed, err := ReadRecord(path)
	if err != nil {
		return err
	}
	return fits(folder, committed)
}

// expectFinished fails if a commit seems to be running.
func expectFinished(t *testing.T, root string) {
	t.Helper()
	expectAbsent(t, root, "good/next.json", "good/hot"+moving)
	if hasDied(root) {
		t.Error("a commit seems to have died")
	}
}

// A set that the program accepts is in hot/ and in the record under a new version, and becomes the verified set.
// Temporary folders are removed.
func TestCommitSucceeds(t *testing.T) {
	root, _ := NewVolume(t)
	versions := []string{Unversioned}
	for _, name := range []string{"2", "3", "3"} {
		want, files := Set(name, Routes, Added, Listeners)
		want.Rules = json.RawMessage(`{"count":3}`)
		send(t, root, want, files)

		mustCommit(t, root)

		expectSet(t, root, files, versions...)
		expectGood(t, root, files)
		expectFinished(t, root)
		committed, err := ReadRecord(RecordPath(root))
		if err != nil || !slices.Equal(committed.Files, want.Files) || !maps.Equal(committed.Live, want.Live) {
			t.Errorf("the record is %+v, %v", committed, err)
		}
		if string(committed.Rules) != `{"count":3}` {
			t.Errorf("the record has forgotten the rules: %s", committed.Rules)
		}
		versions = append(versions, committed.Version)
	}
}

// A commit reports once that the program has accepted all files, before the proof. Its result has the evidence.
func TestCommitTellsThatTheFilesAreTaken(t *testing.T) {
	root, _ := NewVolume(t)
	files := sendSet(t, root, "2", Routes, Added, Listeners)
	program := StartReader(root)
	program.Slow = 5
	program.Deaf = func(asked int) bool { return asked == 7 } // the first proof
	calls := 0

	result, err := Volume{root, Resources, program, time.Now}.commitSent(func() {
		calls++
		if unversioned(program.Taken)["listeners"] != files[Listeners] || program.Asked != 6 {
			t.Errorf("told after %d answers, when %v was taken", program.Asked, program.Taken)
		}
	})

	if err != nil || !result.Committed || calls != 1 {
		t.Errorf("got %+v, %v; told %d times", result, err, calls)
	}
	if !maps.Equal(result.Evidence, program.Evidence()) {
		t.Errorf("the evidence is %v", result.Evidence)
	}
}

func sendSet(t *testing.T, root, version string, paths ...string) must.Tree {
	t.Helper()
	want, files := Set(version, paths...)
	send(t, root, want, files)
	return files
}

// withBells returns resources with watched folders, and a function for the bells since its last call.
func withBells(t *testing.T, order ...string) ([]boot.Resource, func() []string) {
	t.Helper()
	top := t.TempDir()
	var resources []boot.Resource
	for _, path := range order {
		resource := Resources[slices.IndexFunc(Resources, func(resource boot.Resource) bool { return resource.Path == path })]
		resource.Watched = filepath.Join(top, resource.Name)
		resources = append(resources, resource)
	}
	must.Succeed(t, MakeBells(resources))
	var names []string
	for _, resource := range resources {
		names = append(names, resource.Name)
	}
	return resources, watch(t, top, names...)
}

// The program is notified once for each new file, in the order of its resources, and again for a rollback.
func TestCommitRingsInOrder(t *testing.T) {
	for _, order := range [][]string{{Routes, Added, Listeners}, {Listeners, Added, Routes}} {
		resources, rung := withBells(t, order...)
		names := []string{}
		for _, resource := range resources {
			names = append(names, resource.Name)
		}
		root, before := NewVolume(t)
		program := StartReader(root)
		for range 2 {
			sendSet(t, root, "2", order...)
			if result, err := (Volume{root, resources, program, time.Now}.commitSent(func() {})); err != nil || !result.Committed {
				t.Fatalf("got %+v, %v", result, err)
			}
			if got := rung(); !slices.Equal(got, names) {
				t.Errorf("rung %v, expected %v", got, names)
			}
		}
		_, before = Set("2", order...)
		program.Refuses = []string{sendSet(t, root, "3", order...)[Listeners]}
		must.Get[Result](t)(Volume{root, resources, program, time.Now}.commitSent(func() {}))
		if got := rung(); !slices.Equal(got, append(slices.Clone(names), names...)) {
			t.Errorf("rung %v, expected %v twice", got, names)
		}
		expectSet(t, root, before)
	}
}

// watch records the folders that something is renamed into, in order, which is what Envoy notices.
func watch(t *testing.T, top string, folders ...string) func() []string {
	t.Helper()
	watcher := must.Get[int](t)(unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC))
	t.Cleanup(func() { unix.Close(watcher) })
	names := map[int32]string{}
	for _, folder := range folders {
		mask := uint32(unix.IN_MOVED_TO)
		number := must.Get[int](t)(unix.InotifyAddWatch(watcher, filepath.Join(top, folder), mask))
		names[int32(number)] = folder
	}
	return func() []string {
		buffer := make([]byte, 64*1024)
		size := must.Get[int](t)(unix.Read(watcher, buffer))
		var moved []string
		for buffer = buffer[:size]; len(buffer) > 0; {
			event := (*unix.InotifyEvent)(unsafe.Pointer(&buffer[0]))
			end := unix.SizeofInotifyEvent + int(event.Len)
			moved = append(moved, names[event.Wd])
			buffer = buffer[end:]
		}
		return moved
	}
}

// A commit also removes files that it does not list: otherwise the set would not fit its record, and a start would
// undo it.
func TestCommitRemovesForeignFiles(t *testing.T) {
	root, _ := running(t)
	files := sendSet(t, root, "2", Routes, Added, Listeners)
	must.Write(t, filepath.Join(root, "hot"), must.Tree{"rds/stranger.json": "{}"})

	mustCommit(t, root)

	expectSet(t, root, files)
	expectGood(t, root, files)
	must.Succeed(t, StartGood(root))
	expectSet(t, root, files)
}

// resourceAt returns the resource of a file.
func resourceAt(path string) string {
	return Resources[slices.IndexFunc(Resources, func(resource boot.Resource) bool { return resource.Path == path })].Name
}

// If any resource is rejected, or not live in time, the whole set is rolled back: old contents and their record
// are restored, and added files removed. The result names the resource, and the files are never reported as
// accepted.
func TestCommitIsRolledBack(t *testing.T) {
	for _, path := range []string{Routes, Added, Listeners} {
		for _, rejects := range []bool{true, false} {
			root, before := NewVolume(t)
			program := StartReader(root)
			for _, name := range []string{"2", "3", "3"} {
				spoiled, named := []string{sendSet(t, root, name, Routes, Added, Listeners)[path]}, []string{resourceAt(path)}
				program.Ignores = spoiled
				if rejects {
					program.Refuses, program.Ignores = spoiled, nil
				}

				result, err := Volume{root, Resources, program, program.Clock}.commitSent(func() {
					if path != Added { // which has no version
						t.Error("told that the files are taken")
					}
				})

				if err != nil || result.Committed || result.Hung || result.Reason != program.Reason() || result.Evidence != nil {
					t.Fatalf("got %+v, %v", result, err)
				}
				if rejects && !slices.Equal(result.Rejected, named) || !rejects && (!slices.Equal(result.Missing, named) || len(result.Rejected) > 0) {
					t.Errorf("rejected %v, missing %v, expected %s", result.Rejected, result.Missing, named)
				}
				expectSet(t, root, before)
				expectGood(t, root, before)
				expectFinished(t, root)
				if err := Check(root, Resources, program); err != nil {
					t.Errorf("the program has not taken the old files again: %v", err)
				}
			}
		}
	}
}

// All rejected resources are listed, in a fixed order.
func TestCommitNamesEveryRejection(t *testing.T) {
	for range 8 {
		root, _ := NewVolume(t)
		files := sendSet(t, root, "2", Routes, Added, Listeners)
		program := StartReader(root)
		program.Refuses = slices.Collect(maps.Values(files))

		result, err := commit(root, program)

		want := []string{"listeners", "names", "routes"}
		if err != nil || !slices.Equal(result.Rejected, want) {
			t.Errorf("rejected %v, %v, expected %v", result.Rejected, err, want)
		}
	}
}

// Rejections from before the commit don't count.
func TestCommitIgnoresOlderRejections(t *testing.T) {
	root, _ := NewVolume(t)
	sendSet(t, root, "2", Routes, Listeners)
	program := StartReader(root)
	program.Refused["listeners"] = 7
	program.Slow = 5 // its rejections are looked at before it has taken anything

	if result, err := (Volume{root, Resources, program, time.Now}.commitSent(func() {})); err != nil || !result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
}

// Equal content from before proves nothing: it must be loaded from the files of this commit.
func TestCommitNeedsTheVersion(t *testing.T) {
	root, _ := NewVolume(t)
	files := sendSet(t, root, "1", Routes, Listeners)
	program := StartReader(root)
	program.Ignores = []string{files[Listeners]}

	result, err := commit(root, program)

	if err != nil || result.Committed || !slices.Equal(result.Missing, []string{"listeners"}) {
		t.Errorf("got %+v, %v", result, err)
	}
}

// The right version proves nothing either: the loaded content must be the desired one.
func TestCommitNeedsTheContent(t *testing.T) {
	for _, name := range []string{"routes", "names", "listeners"} {
		root, before := NewVolume(t)
		want, files := Set("2", Routes, Added, Listeners)
		want.Live[name] = DigestOf([]byte("another"))
		send(t, root, want, files)
		program := StartReader(root)

		result, err := commit(root, program)

		if err != nil || result.Committed || !slices.Equal(result.Missing, []string{name}) {
			t.Errorf("got %+v, %v", result, err)
		}
		expectSet(t, root, before)
	}
}

// A program that is silent for less than the hung limit is asked again.
func TestCommitAsksAgain(t *testing.T) {
	root, _ := NewVolume(t)
	files := sendSet(t, root, "2", Routes, Listeners)
	program := StartReader(root)
	program.Deaf = func(asked int) bool { return asked > 1 && asked < 4 }

	result, err := commit(root, program)

	if err != nil || !result.Committed || program.Asked < 4 {
		t.Fatalf("got %+v, %v", result, err)
	}
	expectSet(t, root, files, Unversioned)
}

// A program that no longer answers counts as hung, not as rejecting. The old files are restored for its restart.
func TestCommitHangs(t *testing.T) {
	root, before := NewVolume(t)
	files := sendSet(t, root, "2", Routes, Added, Listeners)
	program := StartReader(root)
	program.Hangs = []string{files[Listeners]}

	result, err := commit(root, program)

	if err != nil || result.Committed || !result.Hung || len(result.Rejected) > 0 {
		t.Fatalf("got %+v, %v", result, err)
	}
	if program.Asked != 5 {
		t.Errorf("known after %d seconds, expected 5", program.Asked)
	}
	if !slices.Equal(result.Missing, []string{"listeners", "names", "routes"}) {
		t.Errorf("missing %v", result.Missing)
	}
	expectSet(t, root, before)
	expectGood(t, root, before)
	expectFinished(t, root)
	if err := Check(root, Resources, StartReader(root)); err != nil {
		t.Errorf("a new start is not healthy: %v", err)
	}
}

// A program that rejects the new files, and is silent after the rollback, is hung too.
func TestCommitHangsWhenItIsTakenBack(t *testing.T) {
	for name, silent := range map[string]func(*Reader, must.Tree){
		"at once":                      func(r *Reader, _ must.Tree) { r.Deaf = func(asked int) bool { return asked > 3 } },
		"after one more answer":        func(r *Reader, _ must.Tree) { r.Deaf = func(asked int) bool { return asked > 4 } },
		"at the sight of the old ones": func(r *Reader, before must.Tree) { r.Hangs = []string{before[Listeners]} },
	} {
		t.Run(name, func(t *testing.T) {
			root, before := NewVolume(t)
			files := sendSet(t, root, "2", Routes, Listeners)
			program := StartReader(root)
			program.Refuses = []string{files[Listeners]}
			silent(program, before)

			result, err := commit(root, program)

			if err != nil || !result.Hung || !slices.Equal(result.Rejected, []string{"listeners"}) {
				t.Fatalf("got %+v, %v", result, err)
			}
			expectSet(t, root, before)
			expectFinished(t, root)
		})
	}
}

// If the files don't match commit.json, nothing changes. The error names the file or path, but no digest, which
// may be a secret's.
func TestCommitVerifiesFirst(t *testing.T) {
	cases := map[string]struct {
		spoil func(*Commit, must.Tree)
		want  string
	}{
		"another content":          {func(_ *Commit, files must.Tree) { files[Listeners] += "!" }, Listeners + " has another digest"},
		"no content":               {func(_ *Commit, files must.Tree) { delete(files, Listeners) }, Listeners + " has another digest"},
		"no path":                  {func(c *Commit, _ must.Tree) { c.Files[0].Path = "" }, "leaves the folder"},
		"a path out of the folder": {func(c *Commit, files must.Tree) { rename(c, files, "../outside") }, "leaves the folder"},
		"an absolute path":         {func(c *Commit, files must.Tree) { rename(c, files, "/outside") }, "leaves the folder"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			root, _ := NewVolume(t)
			want, files := Set("2", Routes, Listeners)
			test.spoil(&want, files)
			send(t, root, want, files)
			expectUntouched(t, root, test.want)
		})
	}
	root, files := NewVolume(t)
	send(t, root, Commit{}, files)
	expectUntouched(t, root, "the commit has no files")
	for _, sent := range []string{"", "a tar"} {
		must.Put(t, sentTo(root), sent)
		expectUntouched(t, root, map[string]string{"": "invalid size of a commit: 0 bytes", "a tar": "unexpected EOF"}[sent])
	}
}

// expectUntouched fails unless a commit ends with an error and changes nothing.
func expectUntouched(t *testing.T, root, want string) {
	t.Helper()
	before := readTree(t, root)
	result, err := commit(root, StartReader(root))
	if err == nil || result.Committed || !strings.Contains(err.Error(), want) {
		t.Errorf("got %+v, %v, expected %q", result, err, want)
	}
	expectTree(t, root, before)
}

// rename changes the path of a commit's first file.
func rename(commit *Commit, files must.Tree, path string) {
	files[path] = files[commit.Files[0].Path]
	commit.Files[0].Path = path
}

// A program with unreadable rejections gets no new files, because their effect would be invisible.
func TestCommitNeedsAnAnsweringProgram(t *testing.T) {
	root, before := NewVolume(t)
	sendSet(t, root, "2", Routes, Listeners)
	program := StartReader(root)
	program.Broken = errors.New("no answer")

	_, err := commit(root, program)

	if !errors.Is(err, program.Broken) {
		t.Errorf("got %v", err)
	}
	expectTree(t, filepath.Join(root, "hot"), before)
}

// If the program can't be notified of the new files, they are rolled back.
func TestCommitTakesBackWhatNobodyIsToldOf(t *testing.T) {
	root, before := NewVolume(t)
	sendSet(t, root, "2", Routes, Added, Listeners)
	resources, _ := withBells(t, Routes, Listeners)
	must.Succeed(t, os.RemoveAll(resources[1].Watched))

	result, err := Volume{root, resources, StartReader(root), time.Now}.commitSent(func() {})

	if err == nil || result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
	expectSet(t, root, before)
	expectGood(t, root, before)
	expectAbsent(t, root, "good/next.json")
}

// Without a verified set, the previous content of hot/ is restored, but not verified: nothing starts with it.
func TestCommitWithoutAGoodSet(t *testing.T) {
	for name, spoil := range map[string]func(root string) error{
		"a changed file": func(root string) error {
			return volume.WriteFile(filepath.Join(root, "hot", Listeners), []byte(Content("x", Listeners)))
		},
		"no record": func(root string) error { return os.Remove(RecordPath(root)) },
	} {
		t.Run(name, func(t *testing.T) {
			root, _ := NewVolume(t)
			must.Succeed(t, spoil(root))
			before := readTree(t, filepath.Join(root, "hot"))
			files := sendSet(t, root, "2", Routes, Added, Listeners)
			program := StartReader(root)
			program.Refuses = []string{files[Routes]}

			result, err := commit(root, program)

			if err != nil || result.Committed || result.Hung {
				t.Fatalf("got %+v, %v", result, err)
			}
			if got := unversioned(readTree(t, filepath.Join(root, "hot"))); !maps.Equal(got, before) {
				t.Errorf("hot has %v, expected %v", got, before)
			}
			if err := StartGood(root); err == nil {
				t.Error("it would be started")
			}
			sendSet(t, root, "3", Routes, Listeners)
			if result, err := (Volume{root, Resources, StartReader(root), time.Now}.commitSent(func() {})); err != nil || !result.Committed {
				t.Errorf("the next commit: %+v, %v", result, err)
			}
		})
	}
}

// A verified set older than the last commit is never restored.
func TestCommitForgetsAnOlderGoodSet(t *testing.T) {
	root, before := NewVolume(t)
	_, files := Set("0", Routes, Listeners)
	must.Write(t, goodTree(root), files)
	refused := sendSet(t, root, "2", Routes, Listeners)
	program := StartReader(root)
	program.Refuses = []string{refused[Listeners]}

	must.Get[Result](t)(commit(root, program))

	expectSet(t, root, before)
}

// A versioned resource counts as loaded only with exactly the commit's version. Unversioned ones are skipped.
func TestNotTaken(t *testing.T) {
	program := StartReader(t.TempDir())
	program.Taken = must.Tree{
		"routes":    string(WithVersion([]byte(Content("1", Routes)), "a1")),
		"listeners": string(WithVersion([]byte(Content("1", Listeners)), "a2")),
		"names":     Content("1", Added),
	}
	program.Slow = 9
	for version, want := range map[string][]string{
		"a1": {"listeners"}, "a2": {"routes"}, "a": {"listeners", "routes"}, "": {"listeners", "routes"},
	} {
		if got, err := serving.NotTaken(program, Resources, version); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v, expected %v", version, got, err, want)
		}
	}
	if got, err := serving.NotTaken(program, Resources[:2], "a1"); err != nil || len(got) > 0 {
		t.Errorf("got %#v, %v, expected an empty list", got, err)
	}
}

// A program without the committed version or digest is unhealthy, with the reason.
func TestCheckOfSomethingElse(t *testing.T) {
	beef := string(WithVersion([]byte(Content("1", Routes)), "beef"))
	for name, test := range map[string]struct {
		files must.Tree
		want  string
	}{
		"another version":          {must.Tree{Routes: beef}, "not loaded from the committed files: [routes]"},
		"another digest":           {must.Tree{Added: Content("3", Added)}, "live content differs from the committed one: names"},
		"another version and more": {must.Tree{Routes: beef, Added: "{}"}, "not loaded from the committed files: [routes]"},
	} {
		root, _ := NewVolume(t)
		sendSet(t, root, "2", Routes, Added, Listeners)
		mustCommit(t, root)
		must.Write(t, filepath.Join(root, "hot"), test.files)
		if err := Check(root, Resources, StartReader(root)); err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
