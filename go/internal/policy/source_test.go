package policy

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/hotfile/hotfiletest"
	"clawker-fw/internal/must"
)

// listOf returns a list that allows one name.
func listOf(name string) string {
	return fmt.Sprintf(`{"ttl":1,"addresses":{"envoy":"10.213.8.10"},"names":{%q:{"at":"envoy"}}}`, name)
}

// A list that can't be used leaves the current one in force.
func TestSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.json")
	hotfiletest.Write(t, path, listOf("a.test"))
	source, err := Open(path)
	must.Succeed(t, err)
	hotfiletest.Write(t, path, "{}")
	if err := source.Load(); err == nil || !source.List().Decide("a.test", time.Now()).Allowed() {
		t.Errorf("got %v", err)
	}
	hotfiletest.Write(t, path, listOf("b.test"))
	if err := source.Load(); err != nil || source.List().Decide("a.test", time.Now()).Allowed() {
		t.Errorf("got %v", err)
	}
}

// Without a usable list Open fails, so the resolver does not start.
func TestOpenErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "names.json")
	if source, err := Open(path); err == nil || source != nil {
		t.Errorf("absent: got %v, %v", source, err)
	}
	hotfiletest.Write(t, path, "{}")
	if source, err := Open(path); err == nil || source != nil || !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("unusable: got %v, %v", source, err)
	}
}
