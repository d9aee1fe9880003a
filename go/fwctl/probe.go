package main

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Report is what probe answers: everything that only the inside of a container knows.
type Report struct {
	Sibling     string              `json:"sibling"`
	Build       string              `json:"build"`
	Live        map[string]string   `json:"live"` // resource -> digest of what the program has loaded
	Connections int                 `json:"connections"`
	Addresses   []string            `json:"addresses"`
	Claimed     bool                `json:"claimed"`
	Others      []string            `json:"others"`       // who else answers at an address of ours
	Network     []string            `json:"network"`      // how the network differs from what was asked
	AgentsSee   map[string][]string `json:"agents_see"`   // what agents see of each sibling and should not
	Files       []string            `json:"engine_files"` // how the files that the engine gives differ
	Program     []string            `json:"program"`      // the command line of the process that serves
	Processes   []string            `json:"processes"`    // what runs here and should not
	Unhealthy   string              `json:"unhealthy"`    // why a health check would fail now, else ""
	Error       string              `json:"error"`        // why the program did not answer, else ""
}

// probe asks everything at once. What can't be read is told in the place where its answer would stand, or as the
// error: it is never left out.
func probe(root string, sibling Sibling, program Program) Report {
	report := Report{Sibling: sibling.Name, Claimed: claimed(root), Live: map[string]string{}}
	report.Addresses = addresses()
	others, othersError := askForOthers()
	report.Network = networkDifferences(sibling)
	report.AgentsSee = agentsSee(root, sibling)
	report.Files = orUnreadable(hereGiven(sibling))
	report.Program = orUnreadable(commandOf(processes, "1"))
	report.Processes = orUnreadable(strangers(processes))
	live, err := program.Live(sibling.Resources)
	if err == nil {
		report.Live = live
		report.Build, err = program.Build()
	}
	if err == nil {
		report.Connections, err = program.Connections()
	}
	if unhealthy := check(root, sibling.Resources, program); unhealthy != nil {
		report.Unhealthy = unhealthy.Error()
	}
	if err != nil {
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

// addresses lists the IPv4 addresses that others can find here, sorted.
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

// health is the container's HEALTHCHECK. CoreDNS's says as well whether agents can reach Envoy. It announces our own
// addresses again each time, so that a neighbour with a wrong entry finds them within one interval whatever happened
// to the network.
func health(root string, sibling Sibling, program Program) error {
	if err := check(root, sibling.Resources, program); err != nil {
		return err
	}
	if err := announceOwn(root, sibling); err != nil {
		return err
	}
	return agentsAreServed(root, sibling)
}

// check fails unless the program has what was committed last: by the version of the files that it has taken, or, where
// there is none, by the digest of what it has read.
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
		return fmt.Errorf("not taken from the files that were committed: %v", other)
	}
	digests := slices.DeleteFunc(slices.Clone(resources), func(each Resource) bool { return !each.Hashed })
	live, err := program.Live(digests)
	if err != nil {
		return err
	}
	for _, each := range digests {
		if live[each.Name] != committed.Live[each.Name] {
			return fmt.Errorf("not live as committed: %s", each.Name)
		}
	}
	return nil
}
