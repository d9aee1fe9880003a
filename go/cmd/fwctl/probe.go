package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// protocol is the version of what fwctl and its client say to each other (protocol.json). It changes where an earlier client
// would misunderstand a helper.
const protocol = 1

// Report is the output of probe: everything that can only be seen inside the container.
type Report struct {
	Protocol    int                 `json:"protocol"`
	Sibling     string              `json:"sibling"`
	Build       string              `json:"build"`
	Live        map[string]string   `json:"live"`             // resource -> digest of the loaded content
	Unread      []string            `json:"unread,omitempty"` // resources left out by a quick probe
	Evidence    Evidence            `json:"evidence,omitempty"`
	Connections int                 `json:"connections"`
	Telemetry   Telemetry           `json:"telemetry"`
	Addresses   []string            `json:"addresses"`
	Claimed     bool                `json:"claimed"`
	Refused     []Refused           `json:"refused"`      // what the limits have refused
	Others      []string            `json:"others"`       // other hosts that answer ARP for our addresses
	Network     []string            `json:"network"`      // differences from the desired network
	AgentsSee   map[string][]string `json:"agents_see"`   // problems that agents see, by sibling
	Dropped     []string            `json:"dropped"`      // siblings to whom agents' packets don't get
	Files       []string            `json:"engine_files"` // differences in the files that the engine provides
	Program     []string            `json:"program"`      // the command line of process 1
	Processes   []string            `json:"processes"`    // processes that don't belong here, or are missing
	Restarts    []Restart           `json:"restarts"`     // helpers that have ended since the container started
	Unhealthy   string              `json:"unhealthy"`    // why a health check would fail now, or ""
	Error       string              `json:"error"`        // why the program did not answer, or ""
}

// Thoroughness says what a probe reports: what agents see of Envoy, or not; and everything that is live, or only what
// is quickly read.
type Thoroughness struct{ envoy, quick bool }

// longToRead is the size of a file, in octets, from which on Envoy takes longer to print what it has loaded than
// another probe takes.
const longToRead = 2 << 20

// quicklyRead returns the resources that a program shows at once, and the names of all others: those with a large file
// of which nothing is known yet.
func quicklyRead(root string, resources []Resource, known Evidence) ([]Resource, []string) {
	quick, unread := []Resource{}, []string{}
	for _, each := range resources {
		info, err := os.Stat(filepath.Join(root, "hot", each.Path))
		if _, read := known[each.Name]; each.Envoy != nil && !read && err == nil && info.Size() > longToRead {
			unread = append(unread, each.Name)
		} else {
			quick = append(quick, each)
		}
	}
	return quick, unread
}

// probe collects the whole report. A part that can't be read is reported as unreadable in its own field, or in
// Error. It is never left out. Unless the engine says that Envoy does not run, `envoy` is true: nobody answers then,
// and waiting for it takes as long as everything else together.
func probe(root string, sibling Sibling, program Program, how Thoroughness) Report {
	report := Report{Protocol: protocol, Sibling: sibling.Name, Claimed: claimed(root), Live: map[string]string{}}
	report.Addresses = addresses()
	others, othersError := askForOthers()
	report.Network = networkDifferences(sibling)
	refused, refusedError := refusedSources()
	report.Refused = refused
	report.AgentsSee, report.Dropped = agentsSee(root, sibling, how.envoy)
	report.Files = orUnreadable(hereGiven(sibling))
	report.Program = orUnreadable(commandOf(processes, "1"))
	report.Restarts, _ = readRestarts(root) // that it can't be read is among the processes
	report.Processes = orUnreadable(processDifferences(processes, root, sibling))
	read := sibling.Resources
	if how.quick {
		read, report.Unread = quicklyRead(root, read, program.Evidence())
	}
	live, err := program.Live(read)
	if err == nil {
		report.Live, report.Evidence = live, program.Evidence()
		report.Build, err = program.Build()
	}
	if err == nil {
		report.Connections, err = program.Connections()
	}
	if err == nil {
		report.Telemetry, err = program.Telemetry()
	}
	if unhealthy := check(root, sibling.Resources, program); unhealthy != nil {
		report.Unhealthy = unhealthy.Error()
	}
	if err = cmp.Or(err, refusedError); err != nil {
		report.Error = err.Error()
	}
	if othersError != nil {
		report.Others = orUnreadable(nil, othersError)
	} else {
		report.Others = others.answers()
	}
	return report
}

func orUnreadable(found []string, err error) []string {
	if err != nil {
		return []string{"unreadable: " + err.Error()}
	}
	return found
}

// addresses returns this container's IPv4 addresses, sorted, without those of host scope.
func addresses() []string {
	found := []string{}
	list, err := netlink.AddrList(nil, unix.AF_INET)
	if err != nil {
		return found
	}
	for _, address := range list {
		if ip, ok := netip.AddrFromSlice(address.IP.To4()); ok && netlink.Scope(address.Scope) != netlink.SCOPE_HOST {
			found = append(found, ip.String())
		}
	}
	sort.Strings(found)
	return found
}

// health is the container's HEALTHCHECK. In CoreDNS's container it also checks that agents can reach Envoy. Each
// check announces our own addresses again, so that a neighbour with a stale ARP entry recovers within one interval.
func health(root string, sibling Sibling, program Program) error {
	if err := check(root, sibling.Resources, program); err != nil {
		return err
	}
	if err := announceOwn(root, sibling); err != nil {
		return err
	}
	return agentsAreServed(root, sibling)
}

// servesWithin is how long a program may take to show that it serves: much longer than on a busy machine.
const servesWithin = 2 * time.Second

// patiently tries something until it succeeds, and returns its last error after servesWithin.
func patiently(try func() error) error {
	for end := time.Now().Add(servesWithin); ; time.Sleep(pollEvery) {
		if err := try(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// check fails unless the program serves what the last commit says. It compares the version of versioned files, and the
// digest of hashed ones.
func check(root string, resources []Resource, program Program) error {
	committed, err := readCommitted(root)
	if err != nil {
		return err
	}
	other, err := notTaken(program, resources, committed.Version)
	if err != nil {
		return err
	}
	if len(other) > 0 {
		return fmt.Errorf("not loaded from the committed files: %v", other)
	}
	if err := program.Serves(); err != nil {
		return err
	}
	digests := slices.DeleteFunc(slices.Clone(resources), func(each Resource) bool { return !each.Hashed })
	live, err := program.Live(digests)
	if err != nil {
		return err
	}
	for _, each := range digests {
		if live[each.Name] != committed.Live[each.Name] {
			return fmt.Errorf("live content differs from the committed one: %s", each.Name)
		}
	}
	return nil
}
