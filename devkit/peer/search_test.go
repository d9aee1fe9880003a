package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// hits returns what a search has printed, as places with needles.
func hits(t *testing.T, written *bytes.Buffer) string {
	t.Helper()
	var found []string
	for decoder := json.NewDecoder(written); decoder.More(); {
		var each searchHit
		if err := decoder.Decode(&each); err != nil {
			t.Fatal(err)
		}
		found = append(found, filepath.Base(each.Place)+":"+each.Needle)
	}
	return strings.Join(found, " ")
}

func newTestSearch(t *testing.T, needles ...string) (*search, *bytes.Buffer) {
	t.Helper()
	var written bytes.Buffer
	found, err := newSearch(needles, &printer{writer: &written})
	if err != nil {
		t.Fatal(err)
	}
	return found, &written
}

// Each needle is found once in each file, wherever it is, and only in those that have changed.
func TestSearchFolder(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"one": "xx needle, needle", "two": "other", "three": "needl", "old": "needle",
		"split": strings.Repeat("x", searchedAtOnce+2) + "needle",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(root, "old"), long, long); err != nil {
		t.Fatal(err)
	}
	search, written := newTestSearch(t, "needle", "other")
	if err := search.folder(context.Background(), root, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if found := hits(t, written); found != "one:needle split:needle two:other" {
		t.Error(found)
	}
	if err := search.folder(context.Background(), filepath.Join(root, "none"), time.Time{}); err == nil {
		t.Error("a folder that is not there is searched")
	}
}

// The memory and the environment of a process are found to have what they have, and not what they have not.
func TestSearchProcess(t *testing.T) {
	child := exec.Command("sleep", "60")
	child.Env = []string{"KEPT=in-the-environment"}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	place := "/proc/" + strconv.Itoa(child.Process.Pid)
	for named := []byte(nil); len(named) == 0; { // the kernel makes the arguments of a new program known after it has begun
		named, _ = os.ReadFile(place + "/cmdline")
	}
	search, written := newTestSearch(t, "in-the-environment", "nowhere-else")
	if err := search.process(place); err != nil {
		t.Fatal(err)
	}
	if found := hits(t, written); found != "memory of sleep 60:in-the-environment environment of sleep 60:in-the-environment" || search.summary.Octets < 100_000 {
		t.Errorf("%q in %d octets", found, search.summary.Octets)
	}
	if err := search.processes("/proc", "none"); err == nil {
		t.Error("a process that is not there is searched")
	}
}
