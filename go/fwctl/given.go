package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// givenFiles is where the engine puts files of its own into every container.
const givenFiles = "/etc"

// commonHosts are the names that an engine may give every container. Which of them depends on its version.
var commonHosts = []string{
	"::1 localhost ip6-localhost ip6-loopback",
	"fe00::0 ip6-localnet", "fe00:: ip6-localnet",
	"ff00::0 ip6-mcastprefix", "ff00:: ip6-mcastprefix",
	"ff02::1 ip6-allnodes", "ff02::2 ip6-allrouters",
}

// hereGiven compares the files of this container.
func hereGiven(sibling Sibling) ([]string, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return givenDifferences(givenFiles, hostname, sibling)
}

// givenDifferences compares the files that the engine gives a container with what any engine gives one like this, by
// what they mean. The program resolves names by them: a name in the hosts file leads wherever it says.
func givenDifferences(folder, hostname string, sibling Sibling) ([]string, error) {
	expected := expecting("/etc/hostname: "+hostname, "/etc/hosts: 127.0.0.1 localhost")
	for _, line := range sibling.ResolvConf {
		expected.add("/etc/resolv.conf: " + line)
	}
	for _, line := range commonHosts {
		expected.allow("/etc/hosts: " + line)
	}
	for _, each := range sibling.Interfaces {
		expected.allow(fmt.Sprintf("/etc/hosts: %s %s", each.Address, hostname))
	}
	var found []string
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			meaning, _, _ := strings.Cut(line, "#")
			if words := strings.Fields(meaning); len(words) > 0 {
				found = append(found, fmt.Sprintf("/etc/%s: %s", name, strings.Join(words, " ")))
			}
		}
	}
	differences := expected.differences(found)
	slices.Sort(differences)
	return slices.Compact(differences), nil
}
