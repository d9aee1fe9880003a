package serving

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/statussocket"
)

// statistics are printed by Envoy 1.40, and include some that must be ignored.
const statistics = `access_logs.open_telemetry_access_log.refusals.logs_dropped: 3
access_logs.open_telemetry_access_log.refusals.logs_written: 40
access_logs.open_telemetry_access_log.tls.logs_dropped: 1
access_logs.open_telemetry_access_log.tls.logs_written: 2
cluster_manager.cds.version_text: ""
dns_cache.world.dns_query_attempt: 3
http.routes.rds.routes.config_reload: 2
http.routes.rds.routes.update_failure: 1
http.routes.rds.routes.update_rejected: 2
http.routes.rds.routes.version_text: "b94d27b9934d3e08"
listener.admin.downstream_cx_active: 1
listener.admin.downstream_pre_cx_active: 0
listener.admin.main_thread.downstream_cx_active: 1
listener.http-rules.downstream_cx_active: 7
listener.http-rules.downstream_pre_cx_active: 1
listener.http-rules.worker_0.downstream_cx_active: 7
listener.port-443.downstream_cx_active: 5
listener.port-443.downstream_cx_total: 1200
listener.port-443.downstream_pre_cx_active: 1
listener.port-443.worker_0.downstream_cx_active: 3
listener.port-443.worker_1.downstream_cx_active: 2
listener.port-80.downstream_cx_active: 4
listener.port-80.downstream_pre_cx_active: 0
listener.port-80.worker_0.downstream_cx_active: 0
listener.port-80.worker_1.downstream_cx_active: 4
listener_manager.lds.update_failure: 0
listener_manager.lds.update_rejected: 1
listener_manager.lds.version_text: "9f86d081884c7d65"
server.envoy_bug_failures: 3
server.live: 1
`

// envoyResources are Envoy's resources in clawker-fw's form, one that only fwctl reads, and one without a
// subscription.
var envoyResources = []boot.Resource{
	{Name: "routes", Path: "rds/routes.json", Envoy: &boot.EnvoyProof{Dump: "dynamic_route_configs", At: []string{"route_config"}, Statistics: "http.routes.rds.routes"}},
	{Name: "listeners", Path: "lds/listeners.json", Envoy: &boot.EnvoyProof{Dump: "dynamic_listeners", At: []string{"active_state", "listener"}, Statistics: "listener_manager.lds"}},
	{Name: "notes", Path: "notes.json"},
	{Name: "clusters", Path: "cds/clusters.json", Envoy: &boot.EnvoyProof{Dump: "dynamic_active_clusters", At: []string{"cluster"}, Statistics: "cluster_manager.more"}},
}

// A rejected new listener, which Envoy reports twice, the second time without a name.
const refusedListener = `{
 "configs": [
  {
   "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener",
   "name": "port-80",
   "active_state": {"version_info": "9f86d081884c7d65"}
  },
  {
   "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener",
   "name": "port-443",
   "error_state": {
    "failed_configuration": {
     "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
     "name": "port-443"
    },
    "last_update_attempt": "2026-01-02T03:04:05.678Z",
    "details": "error adding listener '0.0.0.0:443': filter chain '' has the same matching rules defined as ''"
   }
  },
  {
   "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener",
   "error_state": {
    "failed_configuration": {
     "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
     "name": "port-443"
    },
    "details": "error adding listener '0.0.0.0:443': filter chain '' has the same matching rules defined as ''"
   }
  }
 ]
}`

// serveAdmin serves the parts of Envoy's admin interface that fwctl uses, on a socket.
func serveAdmin(t *testing.T, handlers map[string]http.HandlerFunc) envoy {
	t.Helper()
	socket := socketPath(t)
	listener := must.Get[net.Listener](t)(net.Listen("unix", socket))
	mux := http.NewServeMux()
	for path, handler := range handlers {
		mux.HandleFunc(path, handler)
	}
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return NewEnvoy(socket, nil)
}

// says returns a handler that answers with a text.
func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) }
}

// reports returns a handler that answers with the statistics of a type whose names match the filter, like Envoy.
func reports(statistics string) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		filter := regexp.MustCompile(request.URL.Query().Get("filter"))
		for line := range strings.Lines(statistics) {
			name, text, _ := strings.Cut(line, ": ")
			if typeOf(name, text) == request.URL.Query().Get("type") && filter.MatchString(name) {
				w.Write([]byte(line))
			}
		}
	}
}

func typeOf(name, text string) string {
	switch {
	case strings.HasPrefix(text, `"`):
		return "TextReadouts"
	case strings.HasSuffix(name, "_active"), strings.HasSuffix(name, ".live"):
		return "Gauges"
	}
	return "Counters"
}

// dumps returns a handler that answers /config_dump with the given resources of each kind.
func dumps(kinds map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		dump, ok := kinds[request.URL.Query().Get("resource")]
		if !ok {
			dump = "{}"
		}
		w.Write([]byte(dump))
	}
}

// A resource has the version of its own subscription, if any. An update counts as rejected if its content was
// rejected, or if it was unreadable. The records of all loggers are counted, and each connection once, even before
// its first bytes, except those of the admin interface and of the internal listener.
func TestEnvoyStatistics(t *testing.T) {
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /stats": reports(statistics)})

	versions, err := program.Versions(envoyResources)
	if err != nil || !maps.Equal(versions, map[string]string{"listeners": "9f86d081884c7d65", "routes": "b94d27b9934d3e08", "clusters": ""}) {
		t.Errorf("versions %v, %v", versions, err)
	}
	rejections, err := program.Rejections(envoyResources)
	if err != nil || !maps.Equal(rejections, map[string]int{"listeners": 1, "routes": 3}) {
		t.Errorf("rejections %v, %v", rejections, err)
	}
	if telemetry, err := program.Telemetry(); err != nil || telemetry != (statussocket.Telemetry{Sent: 42, Lost: 4}) {
		t.Errorf("telemetry %+v, %v", telemetry, err)
	}
	if checks, err := program.FailedChecks(); err != nil || checks != 3 {
		t.Errorf("failed checks %d, %v", checks, err)
	}
	if connections, err := program.Connections(); err != nil || connections != 10 {
		t.Errorf("connections %d, %v", connections, err)
	}
}

// listenersShown has one listener in each of Envoy's states.
const listenersShown = `{"configs": [
 {"name": "port-80", "active_state": {"version_info": "1", "listener": {"@type": "t", "name": "port-80", "n": 1.50}}},
 {"name": "port-81", "warming_state": {"version_info": "2", "listener": {"@type": "t", "name": "port-81"}}},
 {"name": "port-82", "draining_state": {"version_info": "2", "listener": {"@type": "t", "name": "port-82"}}},
 {"name": "port-443",
  "active_state": {"version_info": "1", "listener": {"name": "port-443", "@type": "t"}, "last_updated": "2026-01-02"},
  "warming_state": {"version_info": "2", "listener": {"@type": "t", "name": "port-443", "more": true}},
  "draining_state": {"version_info": "0", "listener": {"@type": "t", "name": "port-443", "less": true}},
  "error_state": {"failed_configuration": {"@type": "t", "name": "port-443", "bad": true}, "details": "no"}},
 {"name": "port-444", "error_state": {"failed_configuration": {"@type": "t", "name": "port-444"}, "details": "no"}},
 {"error_state": {"failed_configuration": {"@type": "t", "name": "port-444"}, "details": "no"}}
]}`

// Live returns the digest of what Envoy serves, without warming, draining or rejected listeners.
func TestEnvoyLive(t *testing.T) {
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /config_dump": dumps(map[string]string{
		"dynamic_listeners": listenersShown,
		"dynamic_route_configs": `{"configs": [
 {"version_info": "2", "last_updated": "2026-01-02", "route_config": {"name": "routes", "@type": "t", "virtual_hosts": []}}
]}`,
	})})

	live, err := program.Live(envoyResources)

	want := map[string]string{
		"routes":    hash(`[{"@type":"t","name":"routes","virtual_hosts":[]}]`),
		"listeners": hash(`[{"@type":"t","name":"port-443"},{"@type":"t","n":1.50,"name":"port-80"}]`),
		"clusters":  hash(`[]`),
	}
	if err != nil || !maps.Equal(live, want) {
		t.Errorf("got %v, %v, expected %v", live, err, want)
	}
}

// Envoy's configuration is read again only if Envoy reports a change, or no times.
func TestEnvoyEvidence(t *testing.T) {
	updated, dumped := `"last_updated":"2026-01-02T03:04:05.678Z"`, 0
	admin := func(w http.ResponseWriter, request *http.Request) {
		switch mask := request.URL.Query().Get("mask"); mask {
		case "":
			dumped++
			w.Write([]byte(listenersShown))
		case "active_state.last_updated,active_state.version_info":
			w.Write([]byte(`{"configs": [{"active_state": {` + updated + `}}]}`))
		default:
			t.Errorf("asked for %s", mask)
		}
	}
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /config_dump": admin})
	for _, test := range []struct {
		updated string
		dumped  int
	}{
		{updated, 1}, {updated, 1}, {`"last_updated":"2026-01-02T03:04:05.679Z"`, 2}, {updated, 3},
		{`"version_info":"1"`, 4}, {`"version_info":"1"`, 5},
	} {
		updated = test.updated
		again := envoy{program.client, maps.Clone(program.Evidence()), ""}
		live, err := again.Live(envoyResources[1:2])
		program = again

		if err != nil || live["listeners"] != hash(`[{"@type":"t","name":"port-443"},{"@type":"t","n":1.50,"name":"port-80"}]`) {
			t.Errorf("%s: got %v, %v", updated, live, err)
		}
		if dumped != test.dumped {
			t.Errorf("%s: read %d times, expected %d", updated, dumped, test.dumped)
		}
	}
}

// While Envoy loads something, the loaded configuration counts for the state before: the next probe reads it
// again.
func TestEnvoyEvidenceOfAChangingState(t *testing.T) {
	looks := 0
	admin := func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Query().Has("mask") {
			looks++
			fmt.Fprintf(w, `{"configs": [{"active_state": {"last_updated": "%d"}}]}`, min(looks, 2))
			return
		}
		w.Write([]byte(listenersShown))
	}
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /config_dump": admin})
	states := map[string]bool{}
	for range 3 {
		must.Get[map[string]string](t)(program.Live(envoyResources[1:2]))
		states[program.Evidence()["listeners"].State] = true
	}
	if len(states) != 2 {
		t.Errorf("got %v", states)
	}
}

// Configuration in another form than the resource declares does not count as loaded.
func TestEnvoyLiveOfAnotherForm(t *testing.T) {
	for _, shown := range []string{
		`{"configs": [{"active_state": "port-80"}]}`,
		`{"configs": [{"active_state": {"listener": ["port-80"]}}]}`,
		`{"configs": [{"listener": {"name": "port-80"}}]}`,
		`{"configs": [{}]}`, `{"configs": []}`, `{}`,
	} {
		program := serveAdmin(t, map[string]http.HandlerFunc{
			"GET /config_dump": dumps(map[string]string{"dynamic_listeners": shown}),
		})

		live, err := program.Live(envoyResources[1:2])

		if err != nil || !maps.Equal(live, map[string]string{"listeners": hash(`[]`)}) {
			t.Errorf("%s: got %v, %v", shown, live, err)
		}
	}
}

// The digest of a runtime layer is that of the text of its key, which is empty until Envoy has loaded it.
func TestEnvoyLiveRuntime(t *testing.T) {
	layer := []boot.Resource{{Name: "sampling", Path: "rtds/sampling.json", Envoy: &boot.EnvoyProof{Statistics: "runtime", Runtime: "its.share"}}}
	for shown, want := range map[string]string{
		`{"layers": ["ours", "sampling"], "entries": {
 "its.share": {"layer_values": ["", "250000"], "final_value": "250000"},
 "other": {"layer_values": ["1", ""], "final_value": "1"}}}`: "250000",
		`{"layers": ["ours", "sampling"], "entries": {"other": {"final_value": "1"}}}`: "",
		`{}`: "",
	} {
		program := serveAdmin(t, map[string]http.HandlerFunc{"GET /runtime": says(shown)})

		live, err := program.Live(layer)

		if err != nil || !maps.Equal(live, map[string]string{"sampling": hash(want)}) {
			t.Errorf("%s: got %v, %v", shown, live, err)
		}
	}
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /runtime": says("no JSON")})
	if _, err := program.Live(layer); err == nil || !strings.Contains(err.Error(), "/runtime") {
		t.Errorf("got %v", err)
	}
}

// A count that is not a number is an error that names the statistic, never 0.
func TestEnvoyCountsMustBeNumbers(t *testing.T) {
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /stats": reports(
		"listener_manager.lds.update_rejected: No recorded values\n" +
			"access_logs.open_telemetry_access_log.tls.logs_written: No recorded values\n" +
			"server.envoy_bug_failures: No recorded values\n" +
			"listener.port-80.downstream_cx_active: No recorded values\n")})

	if _, err := program.Rejections(envoyResources); err == nil || !strings.Contains(err.Error(), "lds.update_rejected") {
		t.Errorf("rejections: %v", err)
	}
	if _, err := program.Telemetry(); err == nil || !strings.Contains(err.Error(), "logs_written") {
		t.Errorf("telemetry: %v", err)
	}
	if _, err := program.FailedChecks(); err == nil || !strings.Contains(err.Error(), "envoy_bug_failures") {
		t.Errorf("failed checks: %v", err)
	}
	if _, err := program.Connections(); err == nil || !strings.Contains(err.Error(), "downstream_cx_active") {
		t.Errorf("connections: %v", err)
	}
}

// An Envoy that has just started and has no listeners yet has loaded nothing and rejected nothing.
func TestEnvoyWithoutVersions(t *testing.T) {
	program := serveAdmin(t, map[string]http.HandlerFunc{"GET /stats": says("")})

	older, err := NotTaken(program, envoyResources, "9f86d081884c7d65")
	if err != nil || !slices.Equal(older, []string{"clusters", "listeners", "routes"}) {
		t.Errorf("got %v, %v", older, err)
	}
	if rejections, err := program.Rejections(envoyResources); err != nil || len(rejections) > 0 {
		t.Errorf("rejections %v, %v", rejections, err)
	}
}

// Build returns the version string that Envoy reports.
func TestEnvoyBuild(t *testing.T) {
	const build = "9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL"
	program := serveAdmin(t, map[string]http.HandlerFunc{
		"GET /server_info": says(`{"version": "` + build + `", "state": "LIVE", "hot_restart_version": "disabled"}`),
	})

	if got, err := program.Build(); err != nil || got != build {
		t.Errorf("got %q, %v", got, err)
	}
}

// The reason of a rejection is Envoy's message about each rejected listener, without duplicates. Otherwise it
// refers to Envoy's log.
func TestEnvoyReason(t *testing.T) {
	for shown, want := range map[string]string{
		refusedListener: "port-443: error adding listener '0.0.0.0:443': filter chain '' has the same matching rules defined as ''",
		"{}\n":          "Envoy could not read the file; its log has the reason",
	} {
		program := serveAdmin(t, map[string]http.HandlerFunc{"GET /config_dump": dumps(map[string]string{"dynamic_listeners": shown})})
		if reason := program.Reason(); reason != want {
			t.Errorf("got %q", reason)
		}
	}
}

// A status other than 200 is an error with Envoy's message, for every request. So is a missing Envoy.
func TestEnvoyErrors(t *testing.T) {
	fails := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not now", http.StatusServiceUnavailable) }
	expectErrors(t, serveAdmin(t, map[string]http.HandlerFunc{"/": fails}), "503 Service Unavailable: not now")
	expectErrors(t, NewEnvoy(filepath.Join(t.TempDir(), "s"), nil), "no such file or directory")
}

func expectErrors(t *testing.T, program envoy, text string) {
	t.Helper()
	_, live := program.Live(envoyResources)
	_, versions := program.Versions(envoyResources)
	_, rejections := program.Rejections(envoyResources)
	_, connections := program.Connections()
	_, build := program.Build()
	reason := errors.New(program.Reason())
	for _, err := range []error{live, versions, rejections, connections, build, reason, Drain(program, 0, nil)} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, expected %q in it", err, text)
		}
	}
}

// An answer that is not JSON is an error where JSON is expected.
func TestEnvoyAnswersInJSON(t *testing.T) {
	program := serveAdmin(t, map[string]http.HandlerFunc{"/": says("OK\n")})

	if _, err := program.Build(); err == nil {
		t.Error("a build was found")
	}
	if live, err := program.Live(envoyResources); err == nil {
		t.Errorf("got %v", live)
	}
	if reason := program.Reason(); !strings.Contains(reason, "invalid character") {
		t.Errorf("got %q", reason)
	}
}

// A drain sends one graceful request, and reports the number of open connections until it is 0.
func TestDrainUntilNoConnectionIsLeft(t *testing.T) {
	asked, left := []string{}, []string{"2", "0", "1"}
	program := serveAdmin(t, map[string]http.HandlerFunc{
		"POST /drain_listeners": func(_ http.ResponseWriter, request *http.Request) {
			asked = append(asked, request.URL.RawQuery)
		},
		"GET /stats": func(w http.ResponseWriter, request *http.Request) {
			reports("listener.port-443.downstream_cx_active: "+left[0]+"\n")(w, request)
			left = left[1:]
		},
	})

	lines, err := draining(program, time.Minute)

	if !slices.Equal(asked, []string{"graceful&inboundonly"}) {
		t.Errorf("asked %q", asked)
	}
	if err != nil || !slices.Equal(lines, []Draining{{2}, {0}}) {
		t.Errorf("told %v, %v", lines, err)
	}
}

// A drain ends when its time is up, even with open connections.
func TestDrainEnds(t *testing.T) {
	program := serveAdmin(t, map[string]http.HandlerFunc{
		"POST /drain_listeners": says("OK\n"), "GET /stats": reports(statistics),
	})

	lines, err := draining(program, 0)

	if err != nil || len(lines) == 0 || len(lines) > 2 || slices.ContainsFunc(lines, func(report Draining) bool { return report != Draining{10} }) {
		t.Errorf("told %v, %v", lines, err)
	}
}

// draining drains, and returns the reports.
func draining(program envoy, limit time.Duration) (reports []Draining, err error) {
	err = Drain(program, limit, func(now Draining) error {
		reports = append(reports, now)
		return nil
	})
	return reports, err
}

// Envoy serves while its lookups succeed, even after failures; a running one may take a while.
func TestEnvoyLooksNamesUp(t *testing.T) {
	statistics := func(begun, done string) string {
		return "cluster.looking_up.update_attempt: " + begun + "\ncluster.looking_up.update_failure: 1\ncluster.looking_up.update_success: " + done + "\n"
	}
	for name, test := range map[string]struct {
		shown []string // one after the other, the last one again and again
		want  string
	}{
		"all have ended":    {[]string{statistics("3", "3")}, ""},
		"one is under way":  {[]string{statistics("3", "2"), statistics("3", "2"), statistics("3", "3")}, ""},
		"one had failed":    {[]string{statistics("4", "2"), statistics("5", "3")}, ""},
		"none ends":         {[]string{statistics("3", "2")}, "it resolves no names: 3 lookups, 2 succeeded"},
		"they fail":         {[]string{statistics("3", "2"), statistics("9", "2")}, "it resolves no names: 9 lookups, 2 succeeded"},
		"none has begun":    {[]string{statistics("0", "0")}, "it resolves no names: 0 lookups, 0 succeeded"},
		"it tells of none":  {[]string{"server.live: 1\n"}, "it resolves no names: 0 lookups, 0 succeeded"},
		"it tells nonsense": {[]string{statistics("3", "x")}, "invalid syntax"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			program := serveAdmin(t, map[string]http.HandlerFunc{"GET /stats": func(w http.ResponseWriter, request *http.Request) {
				now := min(int(asked.Add(1)), len(test.shown)) - 1
				reports(test.shown[now])(w, request)
			}})
			err := program.Serves()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An answer that is longer than any of Envoy's is an error, and never cut.
func TestEnvoyAnswersAreBounded(t *testing.T) {
	most := mostRead
	defer func() { mostRead = most }()
	answer := `{"version": "1.40.0"}`
	program := serveAdmin(t, map[string]http.HandlerFunc{"/server_info": says(answer)})
	mostRead = int64(len(answer))
	if version := must.Get[string](t)(program.Build()); version != "1.40.0" {
		t.Errorf("its version is %q", version)
	}
	mostRead--
	if version, err := program.Build(); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("its version is %q, with the error %v", version, err)
	}
}
