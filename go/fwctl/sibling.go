package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// Sibling is boot/sibling.json: which sibling this container is, and the network it needs.
type Sibling struct {
	Name       string            `json:"sibling"`
	Interfaces []Interface       `json:"interfaces"`
	Addresses  []Address         `json:"addresses"`
	Tables     []Table           `json:"tables"`
	Service    *Address          `json:"service"`
	Resolver   *netip.Addr       `json:"resolver"`    // the engine's own, to which its packet filter leads
	ResolvConf []string          `json:"resolv_conf"` // what the program finds in this file of the engine's
	Sysctls    map[string]string `json:"sysctls"`     // of the whole namespace: the engine sets them
	Resources  []Resource        `json:"resources"`   // the hot files, in the order in which they go into place
	Settings   map[string]int    `json:"settings"`    // of each interface (net.ipv4.conf.*): serve sets them
}

// Interface is one that the engine gives: its address, its network, and the way out where there is one.
type Interface struct {
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`
	Gateway *netip.Addr  `json:"gateway"`
}

// Address is one address to have beside those the engine gave, on the interface that is in Subnet.
type Address struct {
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`
}

// Table is a routing table that decides for every packet whose source address is From: the default route by
// Gateway, nothing at all to the Unreachable ranges, and the Subnet itself only when it is Connected.
type Table struct {
	From        netip.Addr     `json:"from"`
	ID          int            `json:"table"`
	Gateway     netip.Addr     `json:"gateway"`
	Subnet      netip.Prefix   `json:"subnet"`
	Connected   bool           `json:"connected"`
	Unreachable []netip.Prefix `json:"unreachable"`
}

func readSibling(root string) (Sibling, error) {
	var sibling Sibling
	path := filepath.Join(root, "boot", "sibling.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return sibling, err
	}
	if err := json.Unmarshal(text, &sibling); err != nil {
		return sibling, fmt.Errorf("%s: %w", path, err)
	}
	if sibling.Name != "envoy" && sibling.Name != "coredns" {
		return sibling, fmt.Errorf("%s: no sibling is called %q", path, sibling.Name)
	}
	return sibling, nil
}

// Program is what fwctl can ask of the process that serves.
type Program interface {
	// Build is the program's own words for its version.
	Build() (string, error)
	// Live maps each resource to the digest of what the process has loaded; one that it has not loaded is missing.
	Live(resources []Resource) (map[string]string, error)
	// Versions maps each resource whose file has a version to the one that was accepted last.
	Versions(resources []Resource) (map[string]string, error)
	// Rejections counts the updates refused so far, by resource.
	Rejections(resources []Resource) (map[string]int, error)
	// Reason is the program's explanation of its last rejection.
	Reason() string
	// Connections is the number of open connections from agents.
	Connections() (int, error)
}

func (s Sibling) program() Program {
	if s.Name == "envoy" {
		return newEnvoy(adminSocket)
	}
	return coredns{socket: policySocket, server: "127.0.0.1:53"}
}
