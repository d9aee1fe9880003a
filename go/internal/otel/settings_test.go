package otel

import (
	"encoding/json"
	"strings"
	"testing"

	"clawker-fw/internal/must"
)

// An empty object turns telemetry off, and complete settings turn it on. By default, every allowed query is sent.
func TestParse(t *testing.T) {
	if settings, err := Parse([]byte(" {}\n")); settings != nil || err != nil {
		t.Errorf("off: got %v, %v", settings, err)
	}
	signer := newAuthority(t)
	for _, test := range []struct {
		value any
		want  float64
	}{{nil, 1}, {0.25, 0.25}, {0, 0}} {
		settings, err := Parse(signer.settingsFor(t, "10.0.0.1:4317", map[string]any{"sample": test.value}))
		if err != nil || settings.sample != test.want || settings.endpoint != "10.0.0.1:4317" {
			t.Errorf("got %+v, %v", settings, err)
		}
	}
}

// Invalid settings are an error with the reason, which never repeats the key.
func TestParseErrors(t *testing.T) {
	signer := newAuthority(t)
	_, foreign := newAuthority(t).leaf(t, "other.test", 2)
	for want, change := range map[string]map[string]any{
		"endpoint is missing":             {"endpoint": nil},
		"ParseAddr":                       {"endpoint": "collector.test:4317"},
		"server_name is missing":          {"server_name": ""},
		"ca has no certificate":           {"ca": foreign},
		"private key does not match":      {"key": foreign},
		"failed to find any PEM data":     {"certificate": "none"},
		"key has a value of another type": {"key": []string{foreign}},
		"sample is not between":           {"sample": 1.5},
		"sample has a value":              {"sample": foreign},
		"unknown field":                   {"more": foreign},
	} {
		content := signer.settingsFor(t, "10.0.0.1:4317", change)
		settings, err := Parse(content)
		if settings != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v, expected %q in it", settings, err, want)
			continue
		}
		var document struct{ Key any }
		must.Succeed(t, json.Unmarshal(content, &document))
		own, _ := document.Key.(string)
		for _, key := range []string{own, foreign} {
			for line := range strings.SplitSeq(strings.TrimSpace(key), "\n") {
				if line != "" && strings.Contains(err.Error(), line) {
					t.Errorf("the error shows %s", line)
				}
			}
		}
	}
	for content, want := range map[string]string{
		"": "EOF", "{": "unexpected EOF", "[]": "another type", "{} x": "data after",
	} {
		if settings, err := Parse([]byte(content)); settings != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, expected %q in it", content, settings, err, want)
		}
	}
}
