package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"testing"

	"clawker-fw/internal/attempts"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/must"
	"clawker-fw/internal/probe"
	"clawker-fw/internal/relay"
	"clawker-fw/internal/serving"
)

// fwctl prints the keys in protocol.json. The client is tested against the same answers.
func TestProtocol(t *testing.T) {
	content := must.Get[[]byte](t)(os.ReadFile("protocol.json"))
	var described struct {
		Protocol int
		Verbs    map[string]struct {
			Arguments []string
			Answers   []json.RawMessage
		}
	}
	must.Succeed(t, json.Unmarshal(content, &described))
	if described.Protocol != probe.Protocol {
		t.Errorf("protocol %d is described, not %d", described.Protocol, probe.Protocol)
	}
	printed := map[string][]any{
		"probe": {&probe.Report{}}, "suppressed": {&untold{}}, "usage": {&usedNow{}}, "lookup": {&attempts.Lookup{}}, "relayed": {&relay.Report{}}, "see": {&attempts.Seen{}}, "try": {&attempts.Trial{}},
		"commit-in-place": {&hot.Taken{}, &hot.Result{}}, "claim": nil, "release": nil, "drain": {&serving.Draining{}},
		"proxy": {&attempts.ProxyAnswers{}}, "secrets": {&serving.Used{}}, "requirements": {&kernel.Requirements{}}, "attempts": {&attempts.Outcome{}},
	}
	for verb, answers := range printed {
		verbAnswers, ok := described.Verbs[verb]
		if !ok || len(verbAnswers.Answers) != len(answers) {
			t.Errorf("%s has %d answers and %d are described", verb, len(answers), len(verbAnswers.Answers))
			continue
		}
		for number, answer := range answers {
			decoder := json.NewDecoder(bytes.NewReader(verbAnswers.Answers[number]))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(answer); err != nil {
				t.Errorf("%s: %v", verb, err)
				continue
			}
			again := must.Get[[]byte](t)(json.Marshal(answer))
			var shown, want any
			must.Succeed(t, errors.Join(json.Unmarshal(again, &shown), json.Unmarshal(verbAnswers.Answers[number], &want)))
			if !reflect.DeepEqual(shown, want) {
				t.Errorf("%s prints %s, and %s is described", verb, again, verbAnswers.Answers[number])
			}
		}
	}
	if len(described.Verbs) != len(printed) {
		t.Errorf("%d verbs are described, not %d", len(described.Verbs), len(printed))
	}
}
