package hotfile

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"clawker-fw/internal/must"
)

// parse accepts content that begins with "value ".
func parse(content []byte) (string, error) {
	value, ok := strings.CutPrefix(string(content), "value ")
	if !ok {
		return "", fmt.Errorf("%q is no value", content)
	}
	return value, nil
}

// replace replaces a file by rename, as a commit does.
func replace(t *testing.T, path, content string) {
	t.Helper()
	must.Put(t, path+".new", content)
	must.Succeed(t, os.Rename(path+".new", path))
}

// opened returns a file with the value "a", and its path.
func opened(t *testing.T) (*File[string], string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	must.Put(t, path, "value a")
	file := New(path, parse)
	file.Refresh()
	return file, path
}

// follow returns a followed file with the value "a", and its path.
func follow(t *testing.T) (*File[string], string) {
	t.Helper()
	file, path := opened(t)
	go file.Follow()
	return file, path
}

// Every kind of change of the file is loaded.
func TestFileTakesChanges(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path, content string){
		"another file":  replace,
		"the same file": func(t *testing.T, path, content string) { must.Put(t, path, content) },
		"another file of the same size and time": func(t *testing.T, path, content string) {
			withTimeOf(t, path, func() { replace(t, path, content) })
		},
		"the same file of the same size and time": func(t *testing.T, path, content string) {
			withTimeOf(t, path, func() { must.Put(t, path, content) })
		},
		"a link to another file": func(t *testing.T, path, content string) {
			must.Put(t, path+".other", content)
			must.Succeed(t, os.Symlink(path+".other", path+".new"))
			must.Succeed(t, os.Rename(path+".new", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, path := follow(t)
			for _, value := range []string{"b", "c", "a"} {
				anotherMoment(t, path)
				change(t, path, "value "+value)

				must.Happen(t, value, func() bool { return file.Value() == value })
			}
			if status := file.Status(); status.Refused != 0 || status.Reason != "" || file.Value() != "a" {
				t.Errorf("got %+v", status)
			}
		})
	}
}

// anotherMoment waits until a change would get a later ctime than the file's: the kernel's clock advances in
// steps.
func anotherMoment(t *testing.T, path string) {
	t.Helper()
	before := Identify(path).changed
	must.Happen(t, "another moment", func() bool {
		must.Put(t, path+".clock", "")
		now := Identify(path + ".clock").changed
		return now.Nano() > before.Nano()
	})
}

// withTimeOf restores a file's modification time after a change.
func withTimeOf(t *testing.T, path string, do func()) {
	t.Helper()
	info := must.Get[os.FileInfo](t)(os.Stat(path))
	do()
	must.Succeed(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
	if now, err := os.Stat(path); err != nil || now.Size() != info.Size() || !now.ModTime().Equal(info.ModTime()) {
		t.Fatalf("it has another size or time: %v, %v", now, err)
	}
}

// An unusable file leaves the loaded value in force, is counted, and its reason is reported. The next usable file
// is loaded, even if it equals the loaded one.
func TestFileKeepsItsValue(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  string
	}{
		"no value": {func(t *testing.T, path string) { replace(t, path, "{") }, "is no value"},
		"empty":    {func(t *testing.T, path string) { replace(t, path, "") }, "is no value"},
		"emptied":  {func(t *testing.T, path string) { must.Put(t, path, "") }, "is no value"},
		"gone":     {func(t *testing.T, path string) { os.Remove(path) }, "no such file"},
		"folder": {func(t *testing.T, path string) {
			os.Remove(path)
			os.Mkdir(path, 0o755)
		}, "is a directory"},
	} {
		for _, next := range []string{"a", "b"} {
			t.Run(name+" before "+next, func(t *testing.T) {
				t.Parallel()
				file, path := follow(t)
				before := file.Status()
				test.spoil(t, path)

				must.Happen(t, "a reason", func() bool { return file.Status().Reason != "" })

				now := file.Status()
				if now.Refused < 1 || now.Digest != before.Digest || file.Value() != "a" {
					t.Errorf("got %+v after %+v", now, before)
				}
				must.Happen(t, test.want, func() bool { return strings.Contains(file.Status().Reason, test.want) })
				if reason := file.Status().Reason; !strings.Contains(reason, path) {
					t.Errorf("the reason names no file: %s", reason)
				}
				os.Remove(path)
				replace(t, path, "value "+next)
				must.Happen(t, "the next value", func() bool { return file.Status().Reason == "" })
				if after := file.Status(); file.Value() != next || after.Refused < now.Refused {
					t.Errorf("got %+v after %+v", after, now)
				}
			})
		}
	}
}

// An unreadable file is read again even without a change, and counts once.
func TestRefreshReadsAgainWhatCouldNotBeRead(t *testing.T) {
	file, path := opened(t)
	file.Refresh()
	os.Remove(path)
	must.Succeed(t, os.Mkdir(path, 0o755))
	for range 3 {
		file.Refresh()
	}
	if status := file.Status(); status.Refused != 1 || status.Reason == "" || file.unread != Identify(path) {
		t.Errorf("got %+v", status)
	}
	os.Remove(path)
	must.Put(t, path, "value b")
	for range 3 {
		file.Refresh()
	}
	if status := file.Status(); file.Value() != "b" || status.Refused != 1 || status.Reason != "" {
		t.Errorf("got %q, %+v", file.Value(), status)
	}
}

// Each unusable file is counted once, not at every check.
func TestFileCountsRejections(t *testing.T) {
	file, path := opened(t)
	for count := range 3 {
		if got := file.Status().Refused; got != count {
			t.Errorf("counted %d after %d", got, count)
		}
		replace(t, path, strings.Repeat("{", count+1))
		file.Refresh()
		file.Refresh()
	}
	replace(t, path, "value a")
	file.Refresh()
	if status := file.Status(); status.Refused != 3 || status.Reason != "" {
		t.Errorf("got %+v", status)
	}
}

// Fresh returns a change at once, even while the file is followed, and for many callers.
func TestFreshIsWhatTheFileHasNow(t *testing.T) {
	file, path := follow(t)
	for number := range 100 {
		value := fmt.Sprint("b", number)
		replace(t, path, "value "+value)
		sum := sha256.Sum256([]byte("value " + value))
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				if got, status := file.Fresh(); got != value || status.Digest != hex.EncodeToString(sum[:]) {
					t.Errorf("got %q, %+v", got, status)
				}
			})
		}
		asking.Wait()
	}
}

// A missing file has the zero value, and the reason. It is loaded once it exists.
func TestFileThatIsNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	file := New(path, parse)
	if file.Status() != (Status{}) {
		t.Errorf("got %+v", file.Status())
	}
	value, status := file.Fresh()
	if value != "" || status.Digest != "" || status.Refused != 1 || !strings.Contains(status.Reason, "no such file") {
		t.Errorf("got %q, %+v", value, status)
	}
	must.Put(t, path, "value a")
	value, status = file.Fresh()
	sum := sha256.Sum256([]byte("value a"))
	if value != "a" || status != (Status{hex.EncodeToString(sum[:]), 1, ""}) {
		t.Errorf("got %q, %+v", value, status)
	}
}
