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
	Network     []string          `json:"network"` // how the network differs from what was asked
	Error       string            `json:"error"`   // why the program did not answer, else ""
}

func probe(root string, sibling Sibling, program Program) Report {
	report := Report{Sibling: sibling.Name, Claimed: claimed(root), Versions: map[string]string{}}
	report.Addresses = addresses()
	var err error
	if report.Network, err = networkDifferences(sibling); err != nil {
		report.Network = []string{"unreadable: " + err.Error()}
	}
	if report.Versions, err = program.Versions(); err == nil {
		report.Build, err = program.Build()
	}
	if err == nil {
		report.Connections, err = program.Connections()
	}
	if err != nil {
		report.Error = err.Error()
	}
	return report
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
	return announceOwn(root, sibling)
}
