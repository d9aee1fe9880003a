package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"sort"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Report is what probe answers: everything that only the inside of a container knows.
type Report struct {
	Sibling     string            `json:"sibling"`
	Build       string            `json:"build"`
	Versions    map[string]string `json:"versions"`
	Connections int               `json:"connections"`
	Addresses   []string          `json:"addresses"`
	Claimed     bool              `json:"claimed"`
	Others      []string          `json:"others"`    // who else answers at an address of ours
	Network     []string          `json:"network"`   // how the network differs from what was asked
	Program     []string          `json:"program"`   // the command line of the process that serves
	Processes   []string          `json:"processes"` // what runs here and should not
	Refused     []string          `json:"refused"`   // resources of which an update was refused
	Unhealthy   string            `json:"unhealthy"` // why a health check would fail now, else ""
	Error       string            `json:"error"`     // why the program did not answer, else ""
}

// probe asks everything at once. What can't be read is told in the place where its answer would stand, or as the
// error: it is never left out.
func probe(root string, sibling Sibling, program Program) Report {
	report := Report{Sibling: sibling.Name, Claimed: claimed(root), Versions: map[string]string{}}
	report.Addresses = addresses()
	others, othersError := askForOthers()
	report.Network = orUnreadable(networkDifferences(sibling))
	report.Program = orUnreadable(commandOf(processes, "1"))
	report.Processes = orUnreadable(strangers(processes))
	var err error
	if report.Versions, err = program.Versions(); err == nil {
		report.Build, err = program.Build()
	}
	if err == nil {
		report.Connections, err = program.Connections()
	}
	if err == nil {
		report.Refused, err = refusedUpdates(root, program)
	}
	if unhealthy := check(root, program); unhealthy != nil {
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

// health is the container's HEALTHCHECK. It announces our own addresses again each time, so that a neighbour
// with a wrong entry finds them within one interval whatever happened to the network.
func health(root string, sibling Sibling, program Program) error {
	if err := check(root, program); err != nil {
		return err
	}
	return announceOwn(root, sibling)
}

// check fails unless everything in hot/ is live at the version that was committed.
func check(root string, program Program) error {
	committed, err := readCommitted(root)
	if err != nil {
		return err
	}
	versions, err := program.Versions()
	if err != nil {
		return err
	}
	expected, err := program.Expected(filepath.Join(root, "hot"))
	if err != nil {
		return err
	}
	if missing := notLive(expected, versions, committed.Version); len(missing) > 0 {
		return fmt.Errorf("not live at version %s: %v", committed.Version, missing)
	}
	return nil
}
