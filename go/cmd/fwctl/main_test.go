package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/must"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/start"
)

// statusVariable names a verb. A child of this test prints its status with that verb's privileges, instead of
// running it.
const statusVariable = "FWCTL_TEST_VERB"

func TestMain(m *testing.M) {
	name := os.Getenv(statusVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	at := slices.IndexFunc(verbs, func(verb verb) bool { return verb.name == name })
	verbs[at].run = func([]string) (any, error) {
		threads, err := filepath.Glob("/proc/self/task/*/status")
		for _, thread := range threads {
			status, unreadable := os.ReadFile(thread)
			err = errors.Join(err, unreadable)
			os.Stdout.Write(status)
		}
		return nil, err
	}
	if err := run(append([]string{name}, make([]string, verbs[at].least)...)); err != nil {
		panic(err)
	}
}

// Each verb runs with the capabilities that it needs, on every thread, and no program regains a dropped one. Only
// verbs that drop privileges themselves, and agents' attempts, start with all of their container's.
func TestPrivileges(t *testing.T) {
	must.BeRoot(t, "to have capabilities that can be given up")
	const chown, setUID, netAdmin, netRaw = 1 << 0, 1 << 7, 1 << 12, 1 << 13
	whole := []string{"serve", "relay", "attempts"}
	needed := map[string]int{
		"probe": chown | setUID | netAdmin | netRaw, "claim": netAdmin | netRaw,
		"suppressed": netAdmin, "see": netAdmin, "relayed": netAdmin, "release": netAdmin, "drain": netAdmin,
		"requirements": netAdmin | setUID, "commit-in-place": chown | setUID, "end": chown | setUID,
	}
	for _, verb := range verbs {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), statusVariable+"="+verb.name)
		status := string(must.Get[[]byte](t)(child.Output()))
		if slices.Contains(whole, verb.name) {
			continue
		}
		threads, none := strings.Count(status, "Name:"), fmt.Sprintf("%016x", 0)
		expected := fmt.Sprintf("%016x", needed[verb.name])
		for field, value := range map[string]string{
			"CapEff": expected, "CapPrm": expected, "CapInh": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1",
		} {
			if got := strings.Count(status, field+":\t"+value+"\n"); threads == 0 || got != threads {
				t.Errorf("%s: %d of %d threads have %s %s:\n%s", verb.name, got, threads, field, value, status)
			}
		}
	}
}

// Without a verb, or with an unknown one, the error lists all verbs, including those that fwctl starts itself.
func TestVerbs(t *testing.T) {
	for _, arguments := range [][]string{nil, {"dance"}} {
		if err := run(arguments); err == nil || !strings.Contains(err.Error(), help()) {
			t.Errorf("%q: got %v", arguments, err)
		}
	}
	for _, arguments := range [][]string{{"lookup"}, {"claim"}, {"serve", "--"}} {
		if err := run(arguments); err == nil || !strings.Contains(err.Error(), arguments[0]+" needs ") {
			t.Errorf("%q: got %v", arguments, err)
		}
	}
	for _, name := range []string{
		start.RecordVerb, start.ForwardVerb, start.SignVerb, start.EndVerb, start.CarryVerb,
	} {
		if !strings.Contains(help(), "\n  "+name+" ") {
			t.Errorf("%s is no verb", name)
		}
	}
}

// Probe accepts evidence as JSON, before or after its other arguments.
func TestReadEvidence(t *testing.T) {
	want := serving.Evidence{"listeners": {State: "s", Digest: "d"}}
	given := `known={"listeners":{"state":"s","digest":"d"}}`
	for _, arguments := range [][]string{{given}, {"without-envoy", given}} {
		if got, err := readEvidence(arguments); err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: got %v, %v", arguments, got, err)
		}
	}
	for _, arguments := range [][]string{nil, {"without-envoy"}} {
		if got, err := readEvidence(arguments); err != nil || got != nil {
			t.Errorf("%q: got %v, %v", arguments, got, err)
		}
	}
	if got, err := readEvidence([]string{"known=nonsense"}); err == nil {
		t.Errorf("got %v", got)
	}
}

// A duration is one number of seconds, with or without a fraction, and not negative.
func TestSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "30": 30 * time.Second, "1.5": 1500 * time.Millisecond,
	} {
		if got, err := seconds(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, word := range []string{"", "-1", "soon", "5s"} {
		if got, err := seconds(word); err == nil {
			t.Errorf("%q: got %v", word, got)
		}
	}
}
