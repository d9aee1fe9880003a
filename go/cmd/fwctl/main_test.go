package main

import (
	"maps"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/serving"
	"clawker-fw/internal/start"
)

// Without a verb, and with one that there is not, the error lists all verbs. What fwctl starts by itself is among them.
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
		start.KeepVerb, start.RecordVerb, start.ForwardVerb, start.SignVerb, start.EndVerb, start.CarryVerb,
	} {
		if !strings.Contains(help(), "\n  "+name+" ") {
			t.Errorf("%s is no verb", name)
		}
	}
}

// Evidence is given to probe as JSON, before or after its other arguments.
func TestReadEvidence(t *testing.T) {
	wanted := serving.Evidence{"listeners": {State: "s", Digest: "d"}}
	given := `known={"listeners":{"state":"s","digest":"d"}}`
	for _, arguments := range [][]string{{given}, {"without-envoy", given}} {
		if found, err := readEvidence(arguments); err != nil || !maps.Equal(found, wanted) {
			t.Errorf("%q: got %v, %v", arguments, found, err)
		}
	}
	for _, arguments := range [][]string{nil, {"without-envoy"}} {
		if found, err := readEvidence(arguments); err != nil || found != nil {
			t.Errorf("%q: got %v, %v", arguments, found, err)
		}
	}
	if found, err := readEvidence([]string{"known=nonsense"}); err == nil {
		t.Errorf("got %v", found)
	}
}

// A duration is one number of seconds, with or without a fraction, and not negative.
func TestSeconds(t *testing.T) {
	for text, wanted := range map[string]time.Duration{
		"0": 0, "30": 30 * time.Second, "1.5": 1500 * time.Millisecond,
	} {
		if found, err := seconds(text); err != nil || found != wanted {
			t.Errorf("%s: got %v, %v", text, found, err)
		}
	}
	for _, word := range []string{"", "-1", "soon", "5s"} {
		if found, err := seconds(word); err == nil {
			t.Errorf("%q: got %v", word, found)
		}
	}
}
