package hot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/statussocket"
	"clawker-fw/internal/volume"
)

const (
	Routes    = "rds/routes.json"
	Listeners = "lds/listeners.json"
	Added     = "policy/names.json"
)

// Resources covers every kind of proof: by version and loaded content, and by the hash of the loaded bytes.
var Resources = []boot.Resource{
	{Name: "routes", Path: Routes, Envoy: &boot.EnvoyProof{Statistics: "routes"}},
	{Name: "names", Path: Added, Hashed: true},
	{Name: "listeners", Path: Listeners, Envoy: &boot.EnvoyProof{Statistics: "listeners"}},
}

// Content returns a file in clawker-fw's form. Only Envoy's files have a version.
func Content(set, path string) string {
	if path == Added {
		return fmt.Sprintf(`{"names":{"%s":{}}}`, set)
	}
	return fmt.Sprintf(`{"resources":[{"name":"%s of set %s"}],"version_info":"0"}`, path, set)
}

// Set returns a commit of files in the given order, with the live digest of each resource.
func Set(name string, paths ...string) (Commit, must.Tree) {
	want, files := Commit{Version: Unversioned, Live: map[string]string{}, Seconds: 5}, must.Tree{}
	for _, path := range paths {
		files[path] = Content(name, path)
		want.Files = append(want.Files, HotFile{Path: path, Digest: DigestOf([]byte(files[path]))})
		for _, resource := range Resources {
			if resource.Path == path {
				want.Live[resource.Name] = DigestOf([]byte(files[path]))
			}
		}
	}
	return want, files
}

func WriteRecord(t *testing.T, path string, commit Commit) {
	t.Helper()
	text := must.Get[[]byte](t)(json.Marshal(commit))
	must.Succeed(t, volume.WriteFile(path, text))
}

// NewVolume returns a volume in which set 1 of the routes and listeners is live.
func NewVolume(t *testing.T) (string, must.Tree) {
	t.Helper()
	root := t.TempDir()
	want, files := Set("1", Routes, Listeners)
	must.Write(t, filepath.Join(root, "hot"), files)
	WriteRecord(t, RecordPath(root), want)
	return root, files
}

// Reader is a program that loads hot/ on each request. It can reject, ignore or hang at certain contents.
type Reader struct {
	hot     string
	Refuses []string
	Ignores []string
	Hangs   []string
	Deaf    func(asked int) bool // whether a question, by its number, is not answered
	Slow    int                  // so many questions are answered without a look at the files
	Broken  error
	Asked   int
	seen    must.Tree
	Taken   must.Tree
	Refused map[string]int
	Looked  []must.Tree
	Known   serving.Evidence
}

// StartReader returns a program that has loaded the files of a volume.
func StartReader(root string) *Reader {
	program := &Reader{
		hot: filepath.Join(root, "hot"), seen: must.Tree{}, Taken: must.Tree{}, Refused: map[string]int{},
		Known: serving.Evidence{"listeners": {State: "now", Digest: "digest"}},
	}
	program.look()
	return program
}

// Clock advances by one second with each request to the program, answered or not.
func (r *Reader) Clock() time.Time { return time.Unix(int64(r.Asked), 0) }

// answers loads changed files, and reports whether the program answers this request.
func (r *Reader) answers() error {
	r.Asked++
	if r.Deaf != nil && r.Deaf(r.Asked) {
		return errors.New("no answer")
	}
	if r.Asked > r.Slow && r.Broken == nil {
		r.look()
	}
	return r.Broken
}

func (r *Reader) look() {
	now := must.Tree{}
	for _, resource := range Resources {
		text, err := os.ReadFile(filepath.Join(r.hot, resource.Path))
		if errors.Is(err, fs.ErrNotExist) {
			delete(r.Taken, resource.Name)
			continue
		}
		if err != nil {
			panic(err)
		}
		now[resource.Path] = string(text)
		plain := string(WithVersion(text, Unversioned))
		switch {
		case r.seen[resource.Path] == string(text), slices.Contains(r.Ignores, plain):
		case slices.Contains(r.Hangs, plain):
			r.Broken = errors.New("no answer any more")
		case slices.Contains(r.Refuses, plain):
			r.Refused[resource.Name]++
		default:
			r.Taken[resource.Name] = string(text)
		}
	}
	r.seen = now
	r.Looked = append(r.Looked, now)
}

func (r *Reader) Build() (string, error) { return "reader", r.Broken }

func (r *Reader) Live(resources []boot.Resource) (map[string]string, error) {
	if err := r.answers(); err != nil {
		return nil, err
	}
	live := map[string]string{}
	for _, resource := range resources {
		if text, ok := r.Taken[resource.Name]; ok {
			live[resource.Name] = DigestOf([]byte(text))
		}
	}
	return live, nil
}

func (r *Reader) Evidence() serving.Evidence { return r.Known }

func (r *Reader) Versions(resources []boot.Resource) (map[string]string, error) {
	if err := r.answers(); err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, resource := range resources {
		if resource.Envoy != nil {
			versions[resource.Name] = VersionOf([]byte(r.Taken[resource.Name]))
		}
	}
	return versions, nil
}

func (r *Reader) Rejections([]boot.Resource) (map[string]int, error) {
	if err := r.answers(); err != nil {
		return nil, err
	}
	return maps.Clone(r.Refused), nil
}

func (r *Reader) Reason() string { return "rejected by the test" }

func (r *Reader) Telemetry() (statussocket.Telemetry, error) {
	return statussocket.Telemetry{}, r.Broken
}

func (r *Reader) FailedChecks() (int, error) { return 0, r.Broken }

func (r *Reader) Serves() error { return r.Broken }

func readTree(t *testing.T, folder string) must.Tree {
	t.Helper()
	paths := must.Get[[]string](t)(volume.FilesBelow(folder))
	files := must.Tree{}
	for _, path := range paths {
		content := must.Get[[]byte](t)(os.ReadFile(filepath.Join(folder, path)))
		files[path] = string(content)
	}
	return files
}

// expectTree fails unless a folder has exactly these files.
func expectTree(t *testing.T, folder string, want must.Tree) {
	t.Helper()
	if got := readTree(t, folder); !maps.Equal(got, want) {
		t.Errorf("%s has %v, expected %v", filepath.Base(folder), got, want)
	}
}

// expectAbsent fails if something of these names is in a folder.
func expectAbsent(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
}
