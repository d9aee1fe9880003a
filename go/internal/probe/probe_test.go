package probe

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/statussocket"
)

// resources has both kinds: one versioned, one hashed.
var resources = []boot.Resource{
	{Name: "routes", Path: "rds/routes.json", Envoy: &boot.EnvoyProof{Statistics: "routes"}}, {Name: "names", Path: "policy/names.json", Hashed: true},
}

// program has loaded the recorded files, and ignores a number of requests.
type program struct {
	serving.Program
	broken error
	deaf   int // so many questions are not answered
	names  []string
}

func (p *program) Versions([]boot.Resource) (map[string]string, error) {
	if p.deaf--; p.deaf >= 0 {
		return nil, errors.New("no answer")
	}
	return map[string]string{"routes": "beef"}, p.broken
}

func (p *program) Live(resources []boot.Resource) (map[string]string, error) {
	live := map[string]string{}
	for _, resource := range resources {
		live[resource.Name] = "digest of " + resource.Name
		p.names = append(p.names, resource.Name)
	}
	return live, p.broken
}

func (p *program) Serves() error              { return p.broken }
func (p *program) Build() (string, error)     { return "reader", p.broken }
func (p *program) Evidence() serving.Evidence { return nil }
func (p *program) FailedChecks() (int, error) { return 7, p.broken }
func (p *program) Telemetry() (statussocket.Telemetry, error) {
	return statussocket.Telemetry{}, p.broken
}

// newVolume returns a volume with the record of a program's files.
func newVolume(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	must.Write(t, root, must.Tree{
		"state/committed.json": `{"version":"beef","live":{"names":"digest of names","routes":"digest of routes"},"files":[{"path":"policy/names.json"}]}`,
		"hot/eye/envoy.json":   `{"address": "127.0.0.1", "ports": []}`,
	})
	return root
}

func nothing() error { return nil }

func newResolver() boot.Sibling {
	sibling := nettest.NewResolver()
	sibling.Resources = resources
	return sibling
}

// A probe reports the program's answers and the state of the network.
func TestProbe(t *testing.T) {
	nettest.InNetwork(t)
	for _, end := range []string{"agents-end", "egress-end"} { // which are in the same namespace
		must.Succeed(t, netlink.LinkSetARPOff(nettest.Link(t, end)))
	}
	root := newVolume(t)
	must.Succeed(t, arp.Claim(root, nettest.NewResolver(), 0))

	report := Run(root, newResolver(), &program{}, Thoroughness{Envoy: true}, nothing)

	if report.Sibling != "coredns" || report.Build != "reader" || report.Failed != 7 || report.Error != "" {
		t.Errorf("got %+v", report)
	}
	if committed, err := hot.ReadRecord(hot.RecordPath(root)); err != nil || !maps.Equal(report.Live, committed.Live) {
		t.Errorf("live %v, committed %v, %v", report.Live, committed.Live, err)
	}
	if !report.Claimed || !slices.Equal(report.Addresses, []string{"10.213.8.10", "10.213.8.53", "10.214.0.138"}) {
		t.Errorf("claimed %v, addresses %v", report.Claimed, report.Addresses)
	}
	ends := []string{"interface agents-end is not ours", "interface egress-end is not ours"}
	if !slices.Equal(report.Network, ends) {
		t.Errorf("network %#v", report.Network)
	}
	if report.Others == nil || len(report.Others) > 0 {
		t.Errorf("others %#v", report.Others)
	}
	if report.Unhealthy != "" {
		t.Errorf("unhealthy: %s", report.Unhealthy)
	}
	if len(report.Program) == 0 || report.Processes == nil {
		t.Errorf("program %#v, processes %#v", report.Program, report.Processes)
	}
}

// A silent program is an error in the report, which still has everything else.
func TestProbeOfASilentProgram(t *testing.T) {
	nettest.InNetwork(t)
	root := newVolume(t)
	program := &program{broken: errors.New("no answer")}

	report := Run(root, newResolver(), program, Thoroughness{Envoy: true}, nothing)

	if report.Live == nil || len(report.Live) > 0 {
		t.Errorf("live %#v", report.Live)
	}
	if report.Unhealthy != "no answer" {
		t.Errorf("unhealthy: %q", report.Unhealthy)
	}
	if report.Error != "no answer" || len(report.Addresses) != 2 || report.Claimed {
		t.Errorf("got %+v", report)
	}
}

// A silent supervisor is a difference of the processes, and an unreadable part of the network one of the network.
// The program's answers are still reported.
func TestProbeOfWhatIsUnreadable(t *testing.T) {
	nettest.InNetwork(t)
	root := newVolume(t)
	resolver := newResolver()
	resolver.Sysctls = map[string]string{"net.ipv4.nonexistent": "0"}

	report := Run(root, resolver, &program{}, Thoroughness{Envoy: true}, nothing)

	unreadable := func(text string) bool { return strings.HasPrefix(text, "unreadable: ") }
	if report.Error != "" || len(report.Restarts) > 0 || !slices.ContainsFunc(report.Processes, unreadable) {
		t.Errorf("error %q, restarts %v, processes %q", report.Error, report.Restarts, report.Processes)
	}
	if !slices.ContainsFunc(report.Network, func(text string) bool {
		return strings.HasPrefix(text, "unreadable: settings: ") && strings.Contains(text, "nonexistent")
	}) {
		t.Errorf("network %q", report.Network)
	}
}

// A health check does not compare Envoy's configuration: the accepted version is enough.
func TestHealthAsksForDigestsOfWhatHasNoVersion(t *testing.T) {
	program := &program{}

	must.Succeed(t, Health(newVolume(t), newResolver(), program, nothing))

	if !slices.Equal(program.names, []string{"names"}) {
		t.Errorf("asked for %v", program.names)
	}
}

// Without a commit record or without an answer, the container is unhealthy.
func TestHealthNeedsProof(t *testing.T) {
	program := &program{}
	if err := Health(t.TempDir(), newResolver(), program, nothing); err == nil {
		t.Error("healthy without a record")
	}
	program.broken = errors.New("no answer")
	if err := Health(newVolume(t), newResolver(), program, nothing); !errors.Is(err, program.broken) {
		t.Errorf("got %v", err)
	}
}

// A failed check is repeated, and a second failure makes the container unhealthy.
func TestHealthIsTriedTwice(t *testing.T) {
	for failures, healthy := range []bool{true, true, false} {
		if err := Health(newVolume(t), newResolver(), &program{deaf: failures}, nothing); (err == nil) != healthy {
			t.Errorf("after %d failures: %v", failures, err)
		}
	}
}

// A probe waits for a starting program on request, and otherwise doesn't wait.
func TestProbeOfAStartingProgram(t *testing.T) {
	nettest.InNetwork(t)
	for _, starting := range []bool{true, false} {
		report := Run(newVolume(t), newResolver(), &program{deaf: 10}, Thoroughness{Starting: starting}, nothing)

		if (report.Unhealthy == "") != starting {
			t.Errorf("starting %t: unhealthy %q", starting, report.Unhealthy)
		}
	}
}

// Without a healthy supervisor, a container is not healthy.
func TestHealthOfTheSupervisor(t *testing.T) {
	nettest.InNetwork(t)
	hung := errors.New("it hangs")

	err := Health(newVolume(t), newResolver(), &program{}, func() error { return hung })

	if !errors.Is(err, hung) {
		t.Errorf("got %v", err)
	}
}

// A probe that can't drop its privileges asks no other process.
func TestProbeWithTooManyPrivileges(t *testing.T) {
	nettest.InNetwork(t)
	program := &program{}

	report := Run(newVolume(t), newResolver(), program, Thoroughness{}, func() error { return errors.New("not permitted") })

	if report.Error != "not permitted" || len(program.names) > 0 || len(report.Addresses) == 0 {
		t.Errorf("%+v, asked for %q", report, program.names)
	}
}
