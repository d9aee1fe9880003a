package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listOf returns a list that allows one name.
func listOf(name string) string {
	return fmt.Sprintf(`{"ttl":1,"addresses":{"envoy":"10.213.8.10"},"names":{%q:{"at":"envoy"}}}`, name)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replace replaces a file by rename, as a commit does.
func replace(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// follow opens a list that allows a.test, and follows its file until the test ends.
func follow(t *testing.T) (*Source, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "names.json")
	write(t, path, listOf("a.test"))
	source, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		source.Follow()
		close(ended)
	}()
	t.Cleanup(func() {
		source.Close()
		<-ended
	})
	return source, path
}

func allows(source *Source, name string) bool {
	return source.List().Decide(name, time.Now()).Allowed()
}

// until waits until a condition is true.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(10 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// Each change of the file is loaded, in whatever way it is made.
func TestSourceTakesChanges(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path, content string){
		"another file":  replace,
		"the same file": write,
		"another file of the same size and time": func(t *testing.T, path, content string) {
			withTimeOf(t, path, func() { replace(t, path, content) })
		},
		"the same file of the same size and time": func(t *testing.T, path, content string) {
			withTimeOf(t, path, func() { write(t, path, content) })
		},
		"a link to another file": func(t *testing.T, path, content string) {
			write(t, path+".other", content)
			if err := os.Symlink(path+".other", path+".new"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			source, path := follow(t)
			for _, allowed := range []string{"b.test", "c.test", "a.test"} {
				anotherMoment(t, path)
				change(t, path, listOf(allowed))

				until(t, allowed, func() bool { return allows(source, allowed) })
			}
			if status := source.status(); status.Refused != 0 || status.Reason != "" || allows(source, "c.test") {
				t.Errorf("got %+v", status)
			}
		})
	}
}

// anotherMoment waits until a change would get a later ctime than the file has: the kernel's clock advances in steps.
func anotherMoment(t *testing.T, path string) {
	t.Helper()
	before := identify(path).changed
	until(t, "another moment", func() bool {
		write(t, path+".clock", "")
		now := identify(path + ".clock").changed
		return now.Nano() > before.Nano()
	})
}

// withTimeOf restores a file's modification time after a change.
func withTimeOf(t *testing.T, path string, do func()) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	do()
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(path); err != nil || now.Size() != info.Size() || !now.ModTime().Equal(info.ModTime()) {
		t.Fatalf("it has another size or time: %v, %v", now, err)
	}
}

// An unusable file leaves the current list in force, is counted, and its reason is reported. The next good file is
// loaded, even if it equals the current list.
func TestSourceKeepsItsList(t *testing.T) {
	for name, each := range map[string]struct {
		spoil  func(t *testing.T, path string)
		wanted string
	}{
		"no list":  {func(t *testing.T, path string) { replace(t, path, "{") }, "unexpected EOF"},
		"no names": {func(t *testing.T, path string) { replace(t, path, "{}") }, "names is missing"},
		"empty":    {func(t *testing.T, path string) { replace(t, path, "") }, "EOF"},
		"emptied":  {func(t *testing.T, path string) { write(t, path, "") }, "EOF"},
		"gone":     {func(t *testing.T, path string) { os.Remove(path) }, "no such file"},
		"folder": {func(t *testing.T, path string) {
			os.Remove(path)
			os.Mkdir(path, 0o755)
		}, "is a directory"},
	} {
		for _, next := range []string{"a.test", "b.test"} {
			t.Run(name+" before "+next, func(t *testing.T) {
				source, path := follow(t)
				before := source.status()
				each.spoil(t, path)

				until(t, "a reason", func() bool { return source.status().Reason != "" })

				now := source.status()
				if now.Refused < 1 || now.Digest != before.Digest || now.Names != before.Names || !allows(source, "a.test") {
					t.Errorf("got %+v after %+v", now, before)
				}
				until(t, each.wanted, func() bool { return strings.Contains(source.status().Reason, each.wanted) })
				if reason := source.status().Reason; !strings.Contains(reason, path) {
					t.Errorf("the reason names no file: %s", reason)
				}
				os.Remove(path)
				replace(t, path, listOf(next))
				until(t, "the next list", func() bool { return source.status().Reason == "" })
				if after := source.status(); !allows(source, next) || after.Refused < now.Refused {
					t.Errorf("got %+v after %+v", after, now)
				}
			})
		}
	}
}

// Each unusable file is counted once, not at every check.
func TestSourceCountsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.json")
	write(t, path, listOf("a.test"))
	source, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for count := range 3 {
		if found := source.status().Refused; found != count {
			t.Errorf("counted %d after %d", found, count)
		}
		replace(t, path, strings.Repeat("{", count+1))
		source.take()
	}
	replace(t, path, listOf("a.test"))
	source.take()
	source.take()
	if status := source.status(); status.Refused != 3 || status.Reason != "" {
		t.Errorf("got %+v", status)
	}
	followed, at := follow(t)
	replace(t, at, "{")
	until(t, "a refusal", func() bool { return followed.status().Refused == 1 })
	replace(t, at, listOf("b.test"))
	until(t, "another list", func() bool { return allows(followed, "b.test") })
	if status := followed.status(); status.Refused != 1 {
		t.Errorf("got %+v", status)
	}
}

// Without a usable list Open fails, so the resolver does not start.
func TestOpenErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.json")
	if source, err := Open(path); err == nil || source != nil {
		t.Errorf("absent: got %v, %v", source, err)
	}
	write(t, path, "{}")
	if source, err := Open(path); err == nil || source != nil || !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("unusable: got %v, %v", source, err)
	}
}
