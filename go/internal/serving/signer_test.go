package serving

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/must"
	"clawker-fw/internal/signing"
	"clawker-fw/internal/statussocket"
)

// signersResources are the signer's files, and one of Envoy's.
var signersResources = []boot.Resource{
	{Name: "names", Path: "inspected/names.json", Signer: true},
	{Name: "intermediates", Path: "signing/intermediates.json", Signer: true},
	{Name: "routes", Path: "rds/routes.json", Envoy: &boot.EnvoyProof{Dump: "dynamic_route_configs", At: []string{"route_config"}}},
}

// signerSays serves a signer's status, and returns its folder.
func signerSays(t *testing.T, status signing.Status) string {
	t.Helper()
	folder := filepath.Dir(must.SocketPath(t))
	listener := must.Open[net.Listener](t)(net.Listen("unix", filepath.Join(folder, "status")))
	go statussocket.Tell(listener, func() any { return status })
	return folder
}

// The signer's loaded files are live like Envoy's, and its rejections count, with their reason.
func TestEnvoyWithASigner(t *testing.T) {
	folder := signerSays(t, signing.Status{
		Names: hotfile.Status{Digest: "n1"}, Intermediates: hotfile.Status{Digest: "i1", Refused: 2, Reason: "it has no key"},
	})
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /config_dump": says(`{}`), "GET /stats": says("")})
	program.signer = folder

	live, err := program.Live(signersResources)
	rejections, failed := program.Rejections(signersResources)

	if err != nil || live["names"] != "n1" || live["intermediates"] != "i1" || live["routes"] != hash(`[]`) {
		t.Errorf("got %v, %v", live, err)
	}
	if failed != nil || rejections["intermediates"] != 2 || rejections["names"] != 0 {
		t.Errorf("got %v, %v", rejections, failed)
	}
	if reason := program.Reason(); reason != "it has no key" {
		t.Errorf("got %q", reason)
	}
}

// A silent signer has loaded nothing, and Envoy still answers.
func TestEnvoyWithASilentSigner(t *testing.T) {
	folder := filepath.Dir(must.SocketPath(t))
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /config_dump": says(`{}`), "GET /stats": says("")})
	program.signer = folder

	live, err := program.Live(signersResources)
	rejections, failed := program.Rejections(signersResources)

	if _, hasNames := live["names"]; err != nil || hasNames || live["routes"] != hash(`[]`) {
		t.Errorf("got %v, %v", live, err)
	}
	if failed != nil || len(rejections) != 0 {
		t.Errorf("got %v, %v", rejections, failed)
	}
	if reason := program.Reason(); !strings.Contains(reason, "log") {
		t.Errorf("got %q", reason)
	}
}

// Two route tables are told apart by name.
func TestEnvoyLiveOfWhatHasAName(t *testing.T) {
	admin := func(w http.ResponseWriter, request *http.Request) {
		name := request.URL.Query().Get("name_regex")
		fmt.Fprintf(w, `{"configs": [{"route_config": {"name": %q}}]}`, name)
	}
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /config_dump": admin})
	proof := boot.EnvoyProof{Dump: "dynamic_route_configs", At: []string{"route_config"}, Named: "in.spected"}

	live, err := program.Live([]boot.Resource{{Name: "paths", Envoy: &proof}})

	if err != nil || live["paths"] != hash(`[{"name":"in\\.spected"}]`) {
		t.Errorf("got %v, %v", live, err)
	}
}
