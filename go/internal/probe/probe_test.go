package probe

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/filetest"
	"clawker-fw/internal/hottest"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
	"clawker-fw/internal/record"
)

// withResources returns a sibling with resources.
func withResources(sibling boot.Sibling) boot.Sibling {
	sibling.Resources = hottest.Resources
	return sibling
}

// A probe reports both the program's answers and the state of the network.
func TestProbe(t *testing.T) {
	nettest.InNetwork(t)
	nettest.Silence(t, "agents-end", "egress-end")
	root, _ := hottest.NewVolume(t)
	must.Succeed(t, arp.Claim(root, nettest.NewResolver(), 0))

	report := Run(root, withResources(nettest.NewResolver()), hottest.StartReader(root), Thoroughness{Envoy: true})

	if report.Sibling != "coredns" || report.Build != "reader" || report.Connections != 2 || report.Error != "" {
		t.Errorf("got %+v", report)
	}
	if committed, err := record.Read(record.Path(root)); err != nil || !maps.Equal(report.Live, committed.Live) {
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

// A program that does not answer is an error in the report, which still has everything else.
func TestProbeOfASilentProgram(t *testing.T) {
	nettest.InNetwork(t)
	root, _ := hottest.NewVolume(t)
	program := hottest.StartReader(root)
	program.Broken = errors.New("no answer")

	report := Run(root, withResources(nettest.NewResolver()), program, Thoroughness{Envoy: true})

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

// A record of the ends of helpers that can't be read is a difference of the processes, and a part of the network one of the
// network, never none. The program answers all the same.
func TestProbeOfWhatIsUnreadable(t *testing.T) {
	nettest.InNetwork(t)
	root, _ := hottest.NewVolume(t)
	filetest.Write(t, root, filetest.Tree{"state/restarts.json": "["})
	resolver := nettest.NewResolver()
	resolver.Sysctls = map[string]string{"net.ipv4.nonexistent": "0"}

	report := Run(root, withResources(resolver), hottest.StartReader(root), Thoroughness{Envoy: true})

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

// volumeOf returns a volume with a live set 1 of all kinds of resources, and a program that has loaded it.
func volumeOf(t *testing.T) (string, *hottest.Reader) {
	t.Helper()
	root := t.TempDir()
	wanted, files := hottest.Set("1", hottest.Routes, hottest.Added, hottest.Listeners)
	filetest.Write(t, filepath.Join(root, "hot"), files)
	hottest.WriteRecord(t, record.Path(root), wanted)
	filetest.Write(t, root, filetest.Tree{"hot/eye/envoy.json": `{"address": "127.0.0.1", "ports": []}`})
	return root, hottest.StartReader(root)
}

// A sibling that has not loaded the commit, by version or by digest, is unhealthy with the reason, also in the probe.
func TestHealthOfSomethingElse(t *testing.T) {
	beef := string(record.WithVersion([]byte(hottest.Content("1", hottest.Routes)), "beef"))
	for name, each := range map[string]struct {
		files  filetest.Tree
		wanted string
	}{
		"another version":          {filetest.Tree{hottest.Routes: beef}, "not loaded from the committed files: [routes]"},
		"another digest":           {filetest.Tree{hottest.Added: hottest.Content("2", hottest.Added)}, "live content differs from the committed one: names"},
		"another version and more": {filetest.Tree{hottest.Routes: beef, hottest.Added: "{}"}, "not loaded from the committed files: [routes]"},
	} {
		t.Run(name, func(t *testing.T) {
			root, program := volumeOf(t)
			filetest.Write(t, filepath.Join(root, "hot"), each.files)

			err := Health(root, withResources(nettest.NewResolver()), program)

			if err == nil || err.Error() != each.wanted {
				t.Errorf("got %v", err)
			}
			nettest.InNetwork(t)
			if report := Run(root, withResources(nettest.NewResolver()), program, Thoroughness{Envoy: true}); report.Unhealthy != each.wanted || report.Error != "" {
				t.Errorf("the probe says %q, %q", report.Unhealthy, report.Error)
			}
		})
	}
}

// A health check does not compare what Envoy has loaded: the accepted version is enough there.
func TestHealthAsksForDigestsOfWhatHasNoVersion(t *testing.T) {
	root, program := volumeOf(t)
	asked := &asking{Reader: program}

	must.Succeed(t, Health(root, withResources(nettest.NewResolver()), asked))

	if !slices.Equal(asked.names, []string{"names"}) {
		t.Errorf("asked for %v", asked.names)
	}
}

// asking is a reader that records the resources it was asked for.
type asking struct {
	*hottest.Reader
	names []string
}

func (a *asking) Live(resources []boot.Resource) (map[string]string, error) {
	for _, resource := range resources {
		a.names = append(a.names, resource.Name)
	}
	return a.Reader.Live(resources)
}

// Without a commit record or without an answer, the sibling is unhealthy.
func TestHealthNeedsProof(t *testing.T) {
	root, _ := hottest.NewVolume(t)
	program := hottest.StartReader(root)
	if err := Health(t.TempDir(), withResources(nettest.NewResolver()), program); err == nil {
		t.Error("healthy without a record")
	}
	program.Broken = errors.New("no answer")
	if err := Health(root, withResources(nettest.NewResolver()), program); !errors.Is(err, program.Broken) {
		t.Errorf("got %v", err)
	}
}

// What fails once is tried again, and is unhealthy if it fails again.
func TestHealthIsTriedTwice(t *testing.T) {
	for failures, healthy := range []bool{true, true, false} {
		root, program := volumeOf(t)
		program.Deaf = func(asked int) bool { return asked <= failures }

		if err := Health(root, withResources(nettest.NewResolver()), program); (err == nil) != healthy {
			t.Errorf("after %d failures: %v", failures, err)
		}
	}
}

// A probe of a program that is starting is made when that serves, and other probes at once.
func TestProbeOfAStartingProgram(t *testing.T) {
	nettest.InNetwork(t)
	for _, starting := range []bool{true, false} {
		root, program := volumeOf(t)
		program.Deaf = func(asked int) bool { return asked <= 10 }

		report := Run(root, withResources(nettest.NewResolver()), program, Thoroughness{Starting: starting})

		if (report.Unhealthy == "") != starting {
			t.Errorf("starting %t: unhealthy %q", starting, report.Unhealthy)
		}
	}
}

// A health check takes a claimed address again that was lost, and announces it each time. Without a claim, it leaves the address
// alone.
func TestHealthKeepsTheClaim(t *testing.T) {
	nettest.InNetwork(t)
	root, program := volumeOf(t)
	must.Succeed(t, Health(root, withResources(nettest.NewResolver()), program))
	nettest.ExpectHolders(t)
	filetest.Write(t, root, filetest.Tree{"state/claimed": ""})
	hear := nettest.ListenForARP(t, "agents-end")

	for range 2 {
		must.Succeed(t, Health(root, withResources(nettest.NewResolver()), program))
		hear()
		nettest.ExpectHolders(t, "agents")
	}
}
