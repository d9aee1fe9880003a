package serving

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"clawker-fw/internal/signing"
)

var givenAt = time.Date(2030, 1, 2, 3, 4, 5, 600, time.UTC)

func heldSince(given time.Time, ids ...string) signing.Held {
	held := signing.Held{Secrets: map[string]signing.HeldSecret{}}
	for _, id := range ids {
		held.Secrets[id] = signing.HeldSecret{Given: given}
	}
	return held
}

// Envoy's secrets are read by id. Certificates have other names, and are not requested.
func TestSecretVersions(t *testing.T) {
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /config_dump": func(w http.ResponseWriter, request *http.Request) {
		if asked := request.URL.Query(); asked.Get("resource") != "dynamic_active_secrets" || asked.Get("name_regex") != "secret:.*" {
			t.Errorf("asked for %v", asked)
		}
		fmt.Fprint(w, `{"configs":[{"name":"secret:a#raw","version_info":"1"},{"name":"secret:b","version_info":"none"},{"name":"x.test","version_info":"2"}]}`)
	}})
	got, err := program.secretVersions()
	if err != nil || len(got) != 2 || got["a#raw"] != "1" || got["b"] != "none" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := NewEnvoy(filepath.Join(t.TempDir(), "none"), nil).secretVersions(); err == nil {
		t.Error("nobody answers")
	}
}

// Each subscribed secret is compared, including a removed one, which is empty.
func TestUsedSecrets(t *testing.T) {
	version := givenAt.Format(time.RFC3339Nano)
	ask := func() (signing.Held, error) { return heldSince(givenAt, "a", "b", "other"), nil }
	for what, test := range map[string]struct {
		loaded   map[string]string
		unloaded []string
	}{
		"all":              {map[string]string{"a": version, "b": version, "gone": "none"}, nil},
		"an earlier one":   {map[string]string{"a": "2030-01-01T00:00:00Z", "b": version, "gone": "none"}, []string{"a"}},
		"one taken away":   {map[string]string{"a": version, "b": version, "gone": version}, []string{"gone"}},
		"never asked for":  {map[string]string{"a": version}, []string{"b"}},
		"it does not tell": {nil, []string{"a", "b", "gone"}},
	} {
		versions := func() (map[string]string, error) {
			if test.loaded == nil {
				return map[string]string{"a": version}, errors.New("silent")
			}
			return test.loaded, nil
		}
		got, err := usedSecrets(versions, []string{"a", "b", "gone"}, ask, 0)
		if err != nil || !slices.Equal(got.Unloaded, test.unloaded) || len(got.Secrets) != 3 {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}

// During a change, Envoy has the previous secret for a moment: Envoy and the signer are asked again.
func TestUsedSecretsWhileOneIsGiven(t *testing.T) {
	now, later := givenAt, givenAt.Add(time.Second)
	asked := 0
	ask := func() (signing.Held, error) {
		asked++
		held := heldSince(now, "a")
		if asked == 1 {
			now = later // somebody gives another one before Envoy is asked
		}
		return held, nil
	}
	versions := func() (map[string]string, error) {
		if asked < 3 {
			return map[string]string{"a": "none"}, nil
		}
		return map[string]string{"a": now.Format(time.RFC3339Nano)}, nil
	}
	got, err := usedSecrets(versions, []string{"a"}, ask, time.Minute)
	if err != nil || len(got.Unloaded) != 0 || !got.Secrets["a"].Given.Equal(later) || asked != 3 {
		t.Errorf("%+v after %d questions, %v", got, asked, err)
	}
	if _, err := usedSecrets(versions, nil, func() (signing.Held, error) { return signing.Held{}, errors.New("gone") }, 0); err == nil {
		t.Error("a signer that does not answer has what it should")
	}
}
