package serving

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/signing"
	"clawker-fw/internal/statussocket"
)

// AdminSocket is Envoy's admin socket, as set in the bootstrap, in a folder that only Envoy and root can enter
// (serve): its clients can end Envoy.
const AdminSocket = "/tmp/envoy/admin.sock"

type envoy struct {
	client   http.Client
	evidence Evidence
	signer   string // the folder of the signer's sockets, or "" without a signer
}

// NewEnvoy returns the Envoy with this admin socket. It updates a copy of the earlier evidence.
func NewEnvoy(socket string, earlier Evidence) envoy {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	evidence := Evidence{}
	maps.Copy(evidence, earlier)
	return envoy{http.Client{Transport: &http.Transport{DialContext: dial}}, evidence, ""}
}

// signs returns the signer's status of its files, by resource. A silent signer has loaded nothing, but that is no
// failure of Envoy, which keeps its certificates.
func (e envoy) signs(resources []boot.Resource) map[string]hotfile.Status {
	statuses := map[string]hotfile.Status{}
	signers := slices.DeleteFunc(slices.Clone(resources), func(resource boot.Resource) bool { return !resource.Signer })
	if e.signer == "" || len(signers) == 0 {
		return statuses
	}
	if status, err := signing.Ask(e.signer); err == nil {
		for _, resource := range signers {
			statuses[resource.Name] = status.Loaded(resource.Name)
		}
	}
	return statuses
}

// Time limits of requests. While Envoy loads a large set it does not answer, and a dump of one takes a while too.
const (
	statsWithin = time.Second
	dumpWithin  = 5 * time.Second
)

// mostRead limits the bytes of an answer. A dump of 10,000 rules has 30 MB (measured), and 100,000 are allowed.
var mostRead int64 = 512 << 20

func (e envoy) do(method, path string) ([]byte, error) {
	limit := statsWithin
	if strings.HasPrefix(path, "/config_dump") {
		limit = dumpWithin
	}
	limited, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, method, "http://admin"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, mostRead+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > mostRead {
		return nil, fmt.Errorf("envoy admin %s: the answer is longer than %d bytes", path, mostRead)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("envoy admin %s: %s: %s", path, response.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// read reads a JSON answer. Numbers without one of our types keep their text.
func (e envoy) read(path string, value any) error {
	body, err := e.do(http.MethodGet, path)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(value); err != nil {
		return fmt.Errorf("envoy admin %s: %w", path, err)
	}
	return nil
}

func (e envoy) Build() (string, error) {
	var info struct {
		Version string `json:"version"`
	}
	err := e.read("/server_info", &info)
	return info.Version, err
}

// The kinds of statistics. Envoy has thousands, and is four times as fast with a kind.
const (
	counters = "Counters"
	gauges   = "Gauges"
	texts    = "TextReadouts"
)

func (e envoy) stats(kind, pattern string) (map[string]string, error) {
	body, err := e.do(http.MethodGet, "/stats?type="+kind+"&filter="+pattern)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(body)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			values[name] = strings.Trim(value, `"`)
		}
	}
	return values, nil
}

func (e envoy) numbers(kind, pattern string) (map[string]int, error) {
	byName, err := e.stats(kind, pattern)
	values := map[string]int{}
	for name, text := range byName {
		if values[name], err = strconv.Atoi(text); err != nil {
			return nil, fmt.Errorf("envoy admin: %s: %w", name, err)
		}
	}
	return values, err
}

// Live returns the digests of Envoy's loaded configuration, without warming or draining listeners, and of the
// signer's.
func (e envoy) Live(resources []boot.Resource) (map[string]string, error) {
	live := map[string]string{}
	for _, resource := range resources {
		if resource.Envoy == nil {
			continue
		}
		digest, err := e.digest(resource.Name, *resource.Envoy)
		if err != nil {
			return nil, err
		}
		live[resource.Name] = digest
	}
	for name, status := range e.signs(resources) {
		live[name] = status.Digest
	}
	return live, nil
}

func (e envoy) digest(name string, proof boot.EnvoyProof) (string, error) {
	if proof.Runtime != "" {
		text, err := e.runtime(proof.Runtime)
		return digestOf([]byte(text)), err
	}
	state, err := e.state(proof) // before the dump: a change in between makes it outdated
	if err != nil {
		return "", err
	}
	if loaded := e.evidence[name]; state != "" && loaded.State == state {
		return loaded.Digest, nil
	}
	loaded, err := e.loaded(proof)
	if err != nil {
		return "", err
	}
	digest, err := canonical(loaded)
	if err == nil {
		e.evidence[name] = Loaded{state, digest}
	}
	return digest, err
}

// state identifies Envoy's loaded configuration, by the time in milliseconds and the version of each part. Nobody
// can set these times back. It is "" if Envoy reports no times.
func (e envoy) state(proof boot.EnvoyProof) (string, error) {
	within := append(slices.Clone(proof.At[:len(proof.At)-1]), "")
	fields := strings.Join(within, ".")
	body, err := e.do(http.MethodGet, fmt.Sprintf(
		"/config_dump?resource=%s&mask=%slast_updated,%sversion_info%s", proof.Dump, fields, fields, named(proof)))
	if err != nil {
		return "", err
	}
	if !bytes.Contains(body, []byte(`"last_updated"`)) {
		return "", nil
	}
	return digestOf(body), nil
}

// lookups counts the started and the successful lookups of the bootstrap's name that shows that Envoy can resolve.
func (e envoy) lookups() (begun, done int, err error) {
	values, err := e.numbers(counters, `^cluster\.looking_up\.update_(attempt|success)$`)
	return values["cluster.looking_up.update_attempt"], values["cluster.looking_up.update_success"], err
}

// Serves fails unless a lookup of Envoy succeeds. After a failure, or during a lookup, it waits for another
// success.
func (e envoy) Serves() error {
	begun, before, err := e.lookups()
	if err != nil || begun > 0 && begun == before {
		return err
	}
	return patiently(func() error {
		begun, done, err := e.lookups()
		if err == nil && done <= before {
			err = fmt.Errorf("it resolves no names: %d lookups, %d succeeded", begun, done)
		}
		return err
	})
}

func (e envoy) Evidence() Evidence { return e.evidence }

// canonical returns the digest of Envoy's resources in canonical form: ordered by name, as JSON without spaces and
// with sorted keys. clawker-fw writes files in this form, so the digests are comparable.
func canonical(resources []map[string]any) (string, error) {
	name := func(resource map[string]any) string {
		name, _ := resource["name"].(string)
		return name
	}
	ordered := append([]map[string]any{}, resources...)
	slices.SortFunc(ordered, func(one, other map[string]any) int { return cmp.Compare(name(one), name(other)) })
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(ordered)
	return digestOf(bytes.TrimSuffix(text.Bytes(), []byte("\n"))), err
}

func digestOf(text []byte) string { return fmt.Sprintf("%x", sha256.Sum256(text)) }

func (e envoy) runtime(key string) (string, error) {
	var runtime struct {
		Entries map[string]struct {
			Value string `json:"final_value"`
		} `json:"entries"`
	}
	err := e.read("/runtime", &runtime)
	return runtime.Entries[key].Value, err
}

func named(proof boot.EnvoyProof) string {
	if proof.Named == "" {
		return ""
	}
	return "&name_regex=" + url.QueryEscape(regexp.QuoteMeta(proof.Named))
}

func (e envoy) loaded(proof boot.EnvoyProof) ([]map[string]any, error) {
	var dump struct {
		Configs []map[string]any `json:"configs"`
	}
	if err := e.read("/config_dump?resource="+proof.Dump+named(proof), &dump); err != nil {
		return nil, err
	}
	var configs []map[string]any
	for _, config := range dump.Configs {
		for _, key := range proof.At {
			config, _ = config[key].(map[string]any)
		}
		if config != nil {
			configs = append(configs, config)
		}
	}
	return configs, nil
}

// Versions returns version_text of each xDS subscription, which changes only when an update is accepted. version_info
// in /config_dump would also show rejected updates.
func (e envoy) Versions(resources []boot.Resource) (map[string]string, error) {
	values, err := e.stats(texts, `\.version_text$`)
	if err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, resource := range resources {
		if resource.Envoy != nil {
			versions[resource.Name] = values[resource.Envoy.Statistics+".version_text"]
		}
	}
	return versions, nil
}

func (e envoy) Rejections(resources []boot.Resource) (map[string]int, error) {
	values, err := e.numbers(counters, `\.update_(rejected|failure)$`)
	if err != nil {
		return nil, err
	}
	rejections := map[string]int{}
	for _, resource := range resources {
		if resource.Envoy == nil {
			continue
		}
		for _, kind := range []string{".update_rejected", ".update_failure"} {
			if count, ok := values[resource.Envoy.Statistics+kind]; ok { // otherwise there is no subscription yet
				rejections[resource.Name] += count
			}
		}
	}
	for name, status := range e.signs(resources) {
		rejections[name] = status.Refused
	}
	return rejections, nil
}

func (e envoy) Reason() string {
	if e.signer != "" {
		if status, err := signing.Ask(e.signer); err == nil && cmp.Or(status.Intermediates.Reason, status.Names.Reason) != "" {
			return cmp.Or(status.Intermediates.Reason, status.Names.Reason)
		}
	}
	var dump struct {
		Configs []struct {
			Name  string `json:"name"`
			Error struct {
				Details string `json:"details"`
				Failed  struct {
					Name string `json:"name"`
				} `json:"failed_configuration"`
			} `json:"error_state"`
		} `json:"configs"`
	}
	if err := e.read("/config_dump?resource=dynamic_listeners", &dump); err != nil {
		return err.Error()
	}
	var reasons []string
	for _, listener := range dump.Configs {
		// A new listener is reported twice, with its name and without.
		reason := cmp.Or(listener.Name, listener.Error.Failed.Name) + ": " + listener.Error.Details
		if listener.Error.Details != "" && !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	if len(reasons) == 0 {
		return "Envoy could not read the file; its log has the reason"
	}
	return strings.Join(reasons, "; ")
}

// Connections returns the number of open connections from agents.
func (e envoy) Connections() (int, error) {
	open, err := e.open()
	sum := 0
	for _, count := range open {
		sum += count
	}
	return sum, err
}

// OpenConnections returns the open connections from agents, by port. Those to virtual addresses count as `tcp`.
func OpenConnections(socket string) (map[string]int, error) { return NewEnvoy(socket, nil).open() }

var agentsListener = regexp.MustCompile(`^listener\.port-(.*)\.downstream_(pre_)?cx_active$`)

// open returns the open connections by port, without the admin interface, the internal listener and the per-worker
// statistics, which repeat these numbers.
func (e envoy) open() (map[string]int, error) {
	values, err := e.numbers(gauges, agentsListener.String())
	if err != nil {
		return nil, err
	}
	open := map[string]int{}
	for name, count := range values {
		if at := agentsListener.FindStringSubmatch(name); at != nil && !strings.Contains(at[1], ".worker_") {
			open[at[1]] += count
		}
	}
	return open, nil
}

// Telemetry returns the sums of all listeners' loggers.
func (e envoy) Telemetry() (statussocket.Telemetry, error) {
	var sum statussocket.Telemetry
	values, err := e.numbers(counters, `^access_logs\.open_telemetry_access_log\..*logs_(written|dropped)$`)
	for name, count := range values {
		if strings.HasSuffix(name, "written") {
			sum.Sent += uint64(count)
		} else {
			sum.Lost += uint64(count)
		}
	}
	return sum, err
}

// failedChecks counts conditions that Envoy considers impossible (ENVOY_BUG). Envoy logs them and continues.
const failedChecks = "server.envoy_bug_failures"

func (e envoy) FailedChecks() (int, error) {
	values, err := e.numbers(counters, "^"+regexp.QuoteMeta(failedChecks)+"$")
	return values[failedChecks], err
}

// The signer reports its request secrets, but Envoy may use others: it keeps using an earlier one if its stream is
// broken, and a removed one. Envoy shows the version of each loaded secret, and never its value.

// usesWithin limits Envoy's time to load the signer's secrets. The signer sends them within 50 ms.
const (
	usesWithin    = 4 * time.Second
	askUsageAgain = 50 * time.Millisecond
)

// Used has the signer's secrets, and the ids of those that Envoy uses in another version or not at all.
type Used struct {
	signing.Held
	Unloaded []string `json:"unloaded"`
}

// UsedSecrets asks the signer for its secrets until Envoy uses exactly these or the time is over. Envoy subscribes
// to these ids only.
//
// The signer is asked before Envoy, each time: if both name the same versions, Envoy has loaded the reported
// secrets, even while others are sent. Only lasting differences are reported. A silent Envoy has loaded nothing.
func UsedSecrets(socket string, subscribed []string, ask func() (signing.Held, error)) (Used, error) {
	return usedSecrets(NewEnvoy(socket, nil).secretVersions, subscribed, ask, usesWithin)
}

func usedSecrets(
	versions func() (map[string]string, error), subscribed []string, ask func() (signing.Held, error), within time.Duration,
) (Used, error) {
	for until := time.Now().Add(within); ; time.Sleep(askUsageAgain) {
		held, err := ask()
		if err != nil {
			return Used{Held: held}, err
		}
		loaded, err := versions()
		unloaded := slices.DeleteFunc(slices.Clone(subscribed), func(id string) bool {
			version, isLoaded := loaded[id]
			return err == nil && (version == held.Version(id) || !isLoaded && held.Version(id) == signing.NoVersion)
		})
		if len(unloaded) == 0 || time.Now().After(until) {
			return Used{held, unloaded}, nil
		}
	}
}

func (e envoy) secretVersions() (map[string]string, error) {
	pattern := url.QueryEscape(signing.SecretPrefix + ".*") // matches the whole name: there are as many others as server names
	var dump struct {
		Configs []struct {
			Name    string `json:"name"`
			Version string `json:"version_info"`
		} `json:"configs"`
	}
	if err := e.read("/config_dump?resource=dynamic_active_secrets&name_regex="+pattern, &dump); err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, config := range dump.Configs {
		if id, ok := strings.CutPrefix(config.Name, signing.SecretPrefix); ok {
			versions[id] = config.Version
		}
	}
	return versions, nil
}
