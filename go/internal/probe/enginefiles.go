package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/compare"
)

// engineFolder is the folder with the files that the engine provides in every container.
const engineFolder = "/etc"

// commonHosts are lines that may be in /etc/hosts of every container, depending on the engine's version.
var commonHosts = []string{
	"::1 localhost ip6-localhost ip6-loopback",
	"fe00::0 ip6-localnet", "fe00:: ip6-localnet",
	"ff00::0 ip6-mcastprefix", "ff00:: ip6-mcastprefix",
	"ff02::1 ip6-allnodes", "ff02::2 ip6-allrouters",
}

// decisive are the words of /etc/resolv.conf that decide which server is asked, and for which name (resolv.conf(5)).
// Engines from 25 on keep all other lines of the host's file, such as `sortlist` or `lookup`.
var decisive = []string{"domain", "nameserver", "options", "search"}

// engineFiles compares the engine's files in this container.
func engineFiles(sibling boot.Sibling) ([]string, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return engineFileDifferences(engineFolder, hostname, sibling)
}

// engineFileDifferences compares the engine's files with those that any supported engine provides for this container. It
// ignores comments, spacing and what decides nothing. These files matter because the program resolves names with them.
func engineFileDifferences(folder, hostname string, sibling boot.Sibling) ([]string, error) {
	expected := compare.Expect("/etc/hostname: "+hostname, "/etc/hosts: 127.0.0.1 localhost")
	for _, line := range sibling.ResolvConf {
		expected.Add("/etc/resolv.conf: " + line)
	}
	for _, line := range commonHosts {
		expected.Allow("/etc/hosts: " + line)
	}
	for _, each := range sibling.Interfaces {
		expected.Allow(fmt.Sprintf("/etc/hosts: %s %s", each.Address, hostname))
	}
	var found []string
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			meaning, _, _ := strings.Cut(line, "#")
			words := strings.Fields(meaning)
			if len(words) > 0 && (name != "resolv.conf" || slices.Contains(decisive, words[0])) {
				found = append(found, fmt.Sprintf("/etc/%s: %s", name, strings.Join(words, " ")))
			}
		}
	}
	differences := expected.Differences(found)
	slices.Sort(differences)
	return slices.Compact(differences), nil
}
