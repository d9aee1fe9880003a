package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	routes    = "rds/http-80.json"
	listeners = "lds/listeners.json"
	added     = "rds/http-8080.json"
)

// tree is what is in a folder: path -> content.
type tree map[string]string

func write(t *testing.T, folder string, files tree) {
	t.Helper()
	for path, content := range files {
		if err := writeFile(filepath.Join(folder, path), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, folder string) tree {
	t.Helper()
	paths, err := filesBelow(folder)
	if err != nil {
		t.Fatal(err)
	}
	files := tree{}
	for _, path := range paths {
		content, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			t.Fatal(err)
		}
		files[path] = string(content)
	}
	return files
}

func expect(t *testing.T, folder string, wanted tree) {
	t.Helper()
	if found := read(t, folder); !maps.Equal(found, wanted) {
		t.Errorf("%s has %v, expected %v", filepath.Base(folder), found, wanted)
	}
}

func expectAbsent(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
}

// set is a commit of files whose content begins with its version, listed in the given order.
func set(version string, paths ...string) (Commit, tree) {
	wanted, files := Commit{Version: version, Seconds: 5}, tree{}
	for _, path := range paths {
		files[path] = version + " " + path
		wanted.Files = append(wanted.Files, StagedFile{path, digestOf(files[path])})
	}
	return wanted, files
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

func stage(t *testing.T, root string, wanted Commit, files tree) {
	t.Helper()
	write(t, filepath.Join(root, "stage", "hot"), files)
	record(t, filepath.Join(root, "stage", "commit.json"), wanted)
}

func record(t *testing.T, path string, commit Commit) {
	t.Helper()
	text, err := json.Marshal(commit)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, text); err != nil {
		t.Fatal(err)
	}
}

// newVolume is a volume where version 1 of the routes and listeners is live.
func newVolume(t *testing.T) (string, tree) {
	t.Helper()
	root := t.TempDir()
	wanted, files := set("1", routes, listeners)
	write(t, filepath.Join(root, "hot"), files)
	record(t, committedRecord(root), wanted)
	return root, files
}

// reader takes what is in hot/, as the real programs do: each file is a resource, live at the version with
// which the content begins. It refuses or ignores the files that it was told to.
type reader struct {
	hot        string
	refuses    []string
	ignores    []string
	deaf       int // so many questions for the versions are not answered
	broken     error
	seen       tree
	live       map[string]string
	rejections map[string]int
	looked     []tree
}

func newReader(t *testing.T, root string) *reader {
	t.Helper()
	program := &reader{
		hot: filepath.Join(root, "hot"), seen: tree{}, live: map[string]string{}, rejections: map[string]int{},
	}
	program.look()
	return program
}

func (r *reader) look() {
	paths, err := filesBelow(r.hot)
	if err != nil {
		panic(err)
	}
	now := tree{}
	for _, path := range paths {
		content, err := os.ReadFile(filepath.Join(r.hot, path))
		if err != nil {
			panic(err)
		}
		now[path] = string(content)
		resource := strings.TrimSuffix(path, ".json")
		switch {
		case r.seen[path] == now[path], slices.Contains(r.ignores, now[path]):
		case slices.Contains(r.refuses, now[path]):
			r.rejections[resource]++
		default:
			r.live[resource], _, _ = strings.Cut(now[path], " ")
		}
	}
	r.seen = now
	r.looked = append(r.looked, now)
}

func (r *reader) Build() (string, error) { return "reader", r.broken }

func (r *reader) Versions() (map[string]string, error) {
	if r.deaf > 0 {
		r.deaf--
		return nil, errors.New("no answer")
	}
	r.look()
	return maps.Clone(r.live), r.broken
}

func (r *reader) Rejections() (map[string]int, error) {
	r.look()
	return maps.Clone(r.rejections), r.broken
}

func (r *reader) Reason() string { return "because it was told to" }

func (r *reader) Expected(hot string) ([]string, error) {
	paths, err := filesBelow(hot)
	for index, path := range paths {
		paths[index] = strings.TrimSuffix(path, ".json")
	}
	return paths, err
}

func (r *reader) Connections() (int, error) { return len(r.seen), r.broken }

// impatient is a clock on which a minute passes between two looks at it.
func impatient() func() time.Time {
	now := time.Unix(0, 0)
	return func() time.Time {
		now = now.Add(time.Minute)
		return now
	}
}

// A set that the program takes is in hot/ and on record, and what was needed on the way is gone.
func TestCommitSucceeds(t *testing.T) {
	root, _ := newVolume(t)
	wanted, files := set("2", routes, added, listeners)
	wanted.Rules = json.RawMessage(`{"count":3}`)
	stage(t, root, wanted, files)

	result, err := commit(root, newReader(t, root), time.Now)

	if err != nil || !result.Committed || result.Version != "2" {
		t.Fatalf("got %+v, %v", result, err)
	}
	expect(t, filepath.Join(root, "hot"), files)
	expectAbsent(t, root, "stage", "good", "restore")
	committed, err := readCommitted(root)
	if string(committed.Rules) != `{"count":3}` {
		t.Errorf("the record has forgotten the rules: %s", committed.Rules)
	}
	if err != nil || committed.Version != "2" || !slices.Equal(committed.Files, wanted.Files) {
		t.Errorf("the record is %+v, %v", committed, err)
	}
}

// The answer is one JSON object with lists, empty or not, where lists are promised.
func TestCommitAnswersWithLists(t *testing.T) {
	root, _ := newVolume(t)
	stageSet(t, root, "2", routes, listeners)

	result, err := commit(root, newReader(t, root), time.Now)

	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(result)
	if string(text) != `{"committed":true,"version":"2","rejected":[],"missing":[],"reason":""}` {
		t.Errorf("got %s", text)
	}
}

func stageSet(t *testing.T, root, version string, paths ...string) tree {
	t.Helper()
	wanted, files := set(version, paths...)
	stage(t, root, wanted, files)
	return files
}

// Files go into place by one rename each, in the order in which the commit lists them.
func TestCommitRenamesInOrder(t *testing.T) {
	for _, order := range [][]string{{routes, added, listeners}, {listeners, added, routes}} {
		root, _ := newVolume(t)
		stageSet(t, root, "2", order...)
		moved := watch(t, filepath.Join(root, "hot"), "rds", "lds")

		if _, err := commit(root, newReader(t, root), time.Now); err != nil {
			t.Fatal(err)
		}

		if found := moved(); !slices.Equal(found, order) {
			t.Errorf("moved %v, expected %v", found, order)
		}
	}
}

// watch sees what Envoy sees: the files that are renamed into a folder, in order.
func watch(t *testing.T, top string, folders ...string) func() []string {
	t.Helper()
	watcher, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(watcher) })
	names := map[int32]string{}
	for _, folder := range folders {
		mask := uint32(unix.IN_MOVED_TO | unix.IN_CREATE | unix.IN_MODIFY)
		number, err := unix.InotifyAddWatch(watcher, filepath.Join(top, folder), mask)
		if err != nil {
			t.Fatal(err)
		}
		names[int32(number)] = folder
	}
	return func() []string {
		buffer := make([]byte, 64*1024)
		size, err := unix.Read(watcher, buffer)
		if err != nil {
			t.Fatal(err)
		}
		var moved []string
		for buffer = buffer[:size]; len(buffer) > 0; {
			event := (*unix.InotifyEvent)(unsafe.Pointer(&buffer[0]))
			end := unix.SizeofInotifyEvent + int(event.Len)
			name := strings.TrimRight(string(buffer[unix.SizeofInotifyEvent:end]), "\x00")
			if event.Mask&unix.IN_MOVED_TO == 0 {
				t.Errorf("%s/%s was written in place", names[event.Wd], name)
			}
			moved = append(moved, names[event.Wd]+"/"+name)
			buffer = buffer[end:]
		}
		return moved
	}
}

// A file to remove stays until the new set is proven, its resource is not waited for, and then it goes.
func TestCommitRemovesLast(t *testing.T) {
	root, _ := newVolume(t)
	write(t, filepath.Join(root, "hot"), tree{added: "1 " + added})
	wanted, files := set("2", routes, listeners)
	wanted.Remove = []string{added}
	stage(t, root, wanted, files)
	program := newReader(t, root)

	result, err := commit(root, program, time.Now)

	if err != nil || !result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
	if _, there := program.looked[len(program.looked)-1][added]; !there {
		t.Error("it was gone before the new set was proven")
	}
	expect(t, filepath.Join(root, "hot"), files)
}

// A file to remove that is gone already is no failure.
func TestCommitRemovesWhatIsGone(t *testing.T) {
	root, _ := newVolume(t)
	wanted, files := set("2", routes, listeners)
	wanted.Remove = []string{added}
	stage(t, root, wanted, files)

	if result, err := commit(root, newReader(t, root), time.Now); err != nil || !result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
}

// A set of which any resource is refused is taken back whole: old content back, added files away.
func TestCommitRejected(t *testing.T) {
	for _, refused := range []string{routes, added, listeners} {
		root, before := newVolume(t)
		files := stageSet(t, root, "2", routes, added, listeners)
		program := newReader(t, root)
		program.refuses = []string{files[refused]}

		result, err := commit(root, program, time.Now)

		if err != nil || result.Committed || result.Reason != program.Reason() {
			t.Fatalf("got %+v, %v", result, err)
		}
		if resource := strings.TrimSuffix(refused, ".json"); !slices.Equal(result.Rejected, []string{resource}) {
			t.Errorf("rejected %v, expected %s", result.Rejected, resource)
		}
		expect(t, filepath.Join(root, "hot"), before)
		expectAbsent(t, root, "good", "restore")
		if committed, err := readCommitted(root); err != nil || committed.Version != "1" {
			t.Errorf("the record is %+v, %v", committed, err)
		}
	}
}

// All resources that were refused are named, always in the same order.
func TestCommitNamesEveryRejection(t *testing.T) {
	for range 8 {
		root, _ := newVolume(t)
		files := stageSet(t, root, "2", routes, added, listeners)
		program := newReader(t, root)
		program.refuses = slices.Collect(maps.Values(files))

		result, err := commit(root, program, time.Now)

		wanted := []string{"lds/listeners", "rds/http-80", "rds/http-8080"}
		if err != nil || !slices.Equal(result.Rejected, wanted) {
			t.Errorf("rejected %v, %v, expected %v", result.Rejected, err, wanted)
		}
	}
}

// A rejection that was counted before the commit does not count against it.
func TestCommitIgnoresOlderRejections(t *testing.T) {
	root, _ := newVolume(t)
	stageSet(t, root, "2", routes, listeners)
	program := newReader(t, root)
	program.rejections["lds/listeners"] = 7
	program.deaf = 1 // its rejections are looked at before its versions are known

	if result, err := commit(root, program, time.Now); err != nil || !result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
}

// A set that is not live in time is taken back, and what is missing is named.
func TestCommitTimesOut(t *testing.T) {
	root, before := newVolume(t)
	files := stageSet(t, root, "2", routes, listeners)
	program := newReader(t, root)
	program.ignores = []string{files[listeners]}

	result, err := commit(root, program, impatient())

	if err != nil || result.Committed || result.Reason != program.Reason() {
		t.Fatalf("got %+v, %v", result, err)
	}
	if !slices.Equal(result.Missing, []string{"lds/listeners"}) || len(result.Rejected) > 0 {
		t.Errorf("missing %v, rejected %v", result.Missing, result.Rejected)
	}
	expect(t, filepath.Join(root, "hot"), before)
	expectAbsent(t, root, "good", "restore")
}

// A program that does not answer for a moment is asked again within the time.
func TestCommitAsksAgain(t *testing.T) {
	root, _ := newVolume(t)
	stageSet(t, root, "2", routes, listeners)
	program := newReader(t, root)
	program.deaf = 2

	if result, err := commit(root, program, time.Now); err != nil || !result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
}

// A stage that is not what the commit says moves nothing.
func TestCommitVerifiesFirst(t *testing.T) {
	cases := map[string]func(*Commit, tree){
		"another content":          func(_ *Commit, files tree) { files[listeners] += "!" },
		"no content":               func(_ *Commit, files tree) { delete(files, listeners) },
		"no path":                  func(c *Commit, _ tree) { c.Files[0].Path = "" },
		"a path out of the folder": func(c *Commit, files tree) { rename(c, files, "../outside") },
		"an absolute path":         func(c *Commit, files tree) { rename(c, files, "/outside") },
		"a removal out of the folder": func(c *Commit, _ tree) {
			c.Remove = []string{"../state/committed.json"}
		},
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			root, before := newVolume(t)
			wanted, files := set("2", routes, listeners)
			spoil(&wanted, files)
			stage(t, root, wanted, files)
			staged := read(t, filepath.Join(root, "stage"))

			result, err := commit(root, newReader(t, root), time.Now)

			if err == nil || result.Committed {
				t.Errorf("got %+v, %v", result, err)
			}
			expect(t, filepath.Join(root, "hot"), before)
			expect(t, filepath.Join(root, "stage"), staged)
			expectAbsent(t, root, "good")
		})
	}
}

// rename calls the first file of a commit, with the content that it promises, by another path.
func rename(commit *Commit, files tree, path string) {
	files[path] = files[commit.Files[0].Path]
	commit.Files[0].Path = path
}

// The error for a content that is not the promised one names the file and both digests.
func TestCommitNamesTheWrongDigest(t *testing.T) {
	root, _ := newVolume(t)
	wanted, files := set("2", routes)
	files[routes] = "another"
	stage(t, root, wanted, files)
	sum := sha256.Sum256([]byte("another"))

	_, err := commit(root, newReader(t, root), time.Now)

	text := fmt.Sprintf("staged %s has SHA-256 %x, expected %s", routes, sum, wanted.Files[0].Digest)
	if err == nil || err.Error() != text {
		t.Errorf("got %v, expected %s", err, text)
	}
}

// Without a stage there is nothing to commit, which is an error.
func TestCommitWithoutStage(t *testing.T) {
	root, before := newVolume(t)

	_, err := commit(root, newReader(t, root), time.Now)

	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	expect(t, filepath.Join(root, "hot"), before)
}

// A stage whose description can't be read is an error that names it.
func TestCommitUnreadable(t *testing.T) {
	root, before := newVolume(t)
	write(t, root, tree{"stage/commit.json": "{"})

	_, err := commit(root, newReader(t, root), time.Now)

	if err == nil || !strings.Contains(err.Error(), "stage/commit.json") {
		t.Errorf("got %v", err)
	}
	expect(t, filepath.Join(root, "hot"), before)
}

// A program that can't be asked for its rejections gets no new files: their effect could not be seen.
func TestCommitNeedsAnAnsweringProgram(t *testing.T) {
	root, before := newVolume(t)
	stageSet(t, root, "2", routes, listeners)
	program := newReader(t, root)
	program.broken = errors.New("no answer")

	_, err := commit(root, program, time.Now)

	if !errors.Is(err, program.broken) {
		t.Errorf("got %v", err)
	}
	expect(t, filepath.Join(root, "hot"), before)
}

// When a file can't go into place, those before it are taken back.
func TestCommitTakesBackAfterAFailedRename(t *testing.T) {
	root, before := newVolume(t)
	stageSet(t, root, "2", routes, added, "blocked")
	if err := os.MkdirAll(filepath.Join(root, "hot", "blocked", "folder"), 0o755); err != nil {
		t.Fatal(err)
	}

	result, err := commit(root, newReader(t, root), time.Now)

	if err == nil || result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
	expect(t, filepath.Join(root, "hot"), before)
}

// die leaves the volume as a commit does that dies after so many renames.
func die(t *testing.T, root string, wanted Commit, renames int) {
	t.Helper()
	if err := keepGood(root); err != nil {
		t.Fatal(err)
	}
	paths := wanted.paths()[:renames]
	if err := place(filepath.Join(root, "stage", "hot"), filepath.Join(root, "hot"), paths); err != nil {
		t.Fatal(err)
	}
}

// dead runs a check for every point between two renames at which a commit may have died.
func dead(t *testing.T, check func(t *testing.T, root string, before tree)) {
	for renames := range 4 {
		t.Run(fmt.Sprintf("after %d renames", renames), func(t *testing.T) {
			root, before := newVolume(t)
			wanted, files := set("2", added, routes, listeners)
			stage(t, root, wanted, files)
			die(t, root, wanted, renames)
			check(t, root, before)
		})
	}
}

// A commit that died between two renames is finished by the next one, whatever that brings.
func TestCommitRepairsADeadOne(t *testing.T) {
	dead(t, func(t *testing.T, root string, _ tree) {
		wanted, files := set("3", routes, listeners)
		wanted.Remove = []string{added}
		stage(t, root, wanted, files)

		result, err := commit(root, newReader(t, root), time.Now)

		if err != nil || !result.Committed {
			t.Fatalf("got %+v, %v", result, err)
		}
		expect(t, filepath.Join(root, "hot"), files)
		expectAbsent(t, root, "stage", "good")
	})
}

// A commit that is refused after one that died puts back the last set that was proven, not what the dead one left.
func TestCommitRejectedAfterADeadOne(t *testing.T) {
	dead(t, func(t *testing.T, root string, before tree) {
		files := stageSet(t, root, "3", routes, listeners)
		program := newReader(t, root)
		program.refuses = []string{files[listeners]}

		result, err := commit(root, program, time.Now)

		if err != nil || result.Committed {
			t.Fatalf("got %+v, %v", result, err)
		}
		expect(t, filepath.Join(root, "hot"), before)
		expectAbsent(t, root, "good", "restore")
	})
}

// A file that a dead commit has removed already is put back too, before the files that were refused.
func TestCommitRejectedAfterADeadRemoval(t *testing.T) {
	root := t.TempDir()
	hot := filepath.Join(root, "hot")
	committed, before := set("1", routes, added, listeners)
	write(t, hot, before)
	record(t, committedRecord(root), committed)
	wanted, files := set("2", routes, listeners)
	stage(t, root, wanted, files)
	die(t, root, wanted, len(wanted.Files))
	if err := os.Remove(filepath.Join(hot, added)); err != nil {
		t.Fatal(err)
	}
	program := newReader(t, root)
	refused := stageSet(t, root, "3", routes, listeners)
	program.refuses = []string{refused[listeners]}
	moved := watch(t, hot, "rds", "lds")

	result, err := commit(root, program, time.Now)

	if err != nil || result.Committed {
		t.Fatalf("got %+v, %v", result, err)
	}
	expect(t, hot, before)
	if found := moved()[2:]; !slices.Equal(found, []string{added, routes, listeners}) {
		t.Errorf("put back %v", found)
	}
}

// A commit that died while it was cleaning up leaves an older set in good/, which is not put back any more.
func TestCommitForgetsAnOlderGoodSet(t *testing.T) {
	root, before := newVolume(t)
	write(t, goodFolder(root), tree{routes: "0 " + routes, listeners: "0 " + listeners})
	files := stageSet(t, root, "2", routes, listeners)
	program := newReader(t, root)
	program.refuses = []string{files[listeners]}

	if _, err := commit(root, program, time.Now); err != nil {
		t.Fatal(err)
	}

	expect(t, filepath.Join(root, "hot"), before)
}

// A resource is not live unless it has exactly the wanted version.
func TestNotLive(t *testing.T) {
	versions := map[string]string{"a": "2", "b": "1", "c": "", "x": "2"}

	found := notLive([]string{"a", "b", "c", "d"}, versions, "2")

	if !slices.Equal(found, []string{"b", "c", "d"}) {
		t.Errorf("got %v", found)
	}
}

// Nothing missing is an empty list, not none.
func TestNotLiveIsNeverNil(t *testing.T) {
	if found := notLive([]string{"a"}, map[string]string{"a": "2"}, "2"); found == nil || len(found) > 0 {
		t.Errorf("got %#v", found)
	}
}

// A resource is called as its file is, without the last ending.
func TestWithout(t *testing.T) {
	resources := []string{"lds/listeners", "rds/http-80", "rds/http-8080", "rds/a.b", "zone"}

	found := without(resources, []string{"rds/http-80.json", "rds/a.b.json", "rds/absent.json"})

	if !slices.Equal(found, []string{"lds/listeners", "rds/http-8080", "zone"}) {
		t.Errorf("got %v", found)
	}
}
