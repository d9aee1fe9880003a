package policy

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/must"
	"clawker-fw/internal/resolver"
	"clawker-fw/internal/statussocket"
)

// listOf returns a list that allows one name.
func listOf(name string) string {
	return fmt.Sprintf(`{"ttl":1,"addresses":{"envoy":"10.213.8.10"},"names":{%q:{"at":"envoy"}}}`, name)
}

// With a list and a socket in the Corefile, the plugin answers queries, and reports the live list and the number
// and reason of rejected ones.
func TestSetup(t *testing.T) {
	path, socket := filepath.Join(t.TempDir(), "names.json"), must.SocketPath(t)
	must.Put(t, path, listOf("a.test"))
	controller := caddy.NewTestController(resolver.ServerType, "policy "+path+" "+socket)

	must.Succeed(t, setup(controller))

	plugins := resolver.ConfigOf(controller).Plugin
	if len(plugins) != 1 || plugins[0](nil).Name() != "policy" {
		t.Errorf("there are %d plugins", len(plugins))
	}
	var first, second statussocket.Plugin
	must.Succeed(t, statussocket.Ask(socket, 10*time.Second, nil, &first))
	if len(first.Digest) != 64 || first.Refused != 0 || len(first.Build) <= len("CoreDNS-") {
		t.Errorf("got %+v", first)
	}
	must.Put(t, path, "{}")
	reason := path + ": names is missing; write {} for an empty list"
	want := statussocket.Plugin{Build: first.Build, Status: hotfile.Status{Digest: first.Digest, Refused: 1, Reason: reason}}
	if must.Succeed(t, statussocket.Ask(socket, 10*time.Second, nil, &second)); second != want {
		t.Errorf("got %+v", second)
	}
}

// Without exactly one usable list and socket, setup fails and the resolver does not start.
func TestSetupErrors(t *testing.T) {
	path, socket := filepath.Join(t.TempDir(), "names.json"), must.SocketPath(t)
	must.Put(t, path, listOf("a.test"))
	for corefile, want := range map[string]string{
		"policy":         "Wrong argument count",
		"policy " + path: "Wrong argument count",
		"policy " + path + " " + socket + " more":        "Wrong argument count",
		"policy " + path + " " + socket + " {\n more\n}": "Wrong argument count",
		"policy " + path + ".absent " + socket:           "no such file",
		"policy " + path + " " + socket + "/absent/s":    "no such file",
	} {
		err := setup(caddy.NewTestController(resolver.ServerType, corefile))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "plugin/policy: ") {
			t.Errorf("%s: got %v, expected %q in it", corefile, err, want)
		}
	}
}
