// Package must ends a test in which something has failed that it builds on.
package must

import (
	"io"
	"os"
	"testing"
	"time"
)

// Succeed ends a test if there is an error.
func Succeed(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Get returns the result of a call, and ends a test if it has failed.
func Get[T any](t testing.TB) func(T, error) T {
	return func(found T, err error) T {
		t.Helper()
		Succeed(t, err)
		return found
	}
}

// Open returns what a call has opened, which is closed when the test ends.
func Open[T io.Closer](t testing.TB) func(T, error) T {
	return func(found T, err error) T {
		t.Helper()
		Succeed(t, err)
		t.Cleanup(func() { found.Close() })
		return found
	}
}

// BeRoot ends a test that needs root, and says for what.
func BeRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this needs root, " + why)
	}
}

// Happen waits until a condition is true.
func Happen(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(20 * time.Second); !holds(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not in time: %s", what)
		}
	}
}
