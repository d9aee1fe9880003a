package otel

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"

	"clawker-fw/internal/must"
	"clawker-fw/internal/resolver"
	"clawker-fw/internal/statussocket"
)

// The plugin starts without settings, reports that on its socket, and loads them once they exist.
func TestSetup(t *testing.T) {
	path, socket := filepath.Join(t.TempDir(), "telemetry.json"), must.SocketPath(t)
	controller := caddy.NewTestController(resolver.ServerType, "otel "+path+" "+socket)

	must.Succeed(t, setup(controller))

	if resolver.ConfigOf(controller).Report == nil {
		t.Error("nobody is told of queries")
	}
	read := func() (status statussocket.Plugin) {
		must.Succeed(t, statussocket.Ask(socket, 10*time.Second, nil, &status))
		return status
	}
	if status := read(); status.Digest != "" || !strings.Contains(status.Reason, "no such file") {
		t.Errorf("got %+v", status)
	}
	must.Put(t, path, "{}")
	must.Happen(t, "settings", func() bool { return len(read().Digest) == 64 && read().Reason == "" })
}

// Without one path and one usable socket, setup fails.
func TestSetupErrors(t *testing.T) {
	path, socket := filepath.Join(t.TempDir(), "telemetry.json"), must.SocketPath(t)
	for corefile, want := range map[string]string{
		"otel":                                  "Wrong argument count",
		"otel " + path:                          "Wrong argument count",
		"otel " + path + " " + socket + " more": "Wrong argument count",
		"otel " + path + " " + socket + " {\n more\n}": "Wrong argument count",
		"otel " + path + " " + socket + "/absent/s":    "no such file",
	} {
		err := setup(caddy.NewTestController(resolver.ServerType, corefile))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "plugin/otel: ") {
			t.Errorf("%s: got %v, expected %q in it", corefile, err, want)
		}
	}
}
