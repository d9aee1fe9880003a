// Package probe reports a firewall container's state from inside, and checks its health.
package probe

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/attempts"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/signing"
	"clawker-fw/internal/start"
	"clawker-fw/internal/statussocket"
	"clawker-fw/internal/users"
)

// Protocol is the version of the protocol between fwctl and its client (protocol.json). It changes only where an
// earlier client would misunderstand a helper.
const Protocol = 1

type Report struct {
	Protocol  int                    `json:"protocol"`
	Sibling   string                 `json:"sibling"`
	Build     string                 `json:"build"`
	Live      map[string]string      `json:"live"` // by resource: digest of the loaded content
	Evidence  serving.Evidence       `json:"evidence,omitempty"`
	Telemetry statussocket.Telemetry `json:"telemetry"`
	Failed    int                    `json:"failed_checks"` // of the program's own code, since its start
	Addresses []string               `json:"addresses"`
	Claimed   bool                   `json:"claimed"`
	Refused   []kernel.Refused       `json:"refused"`      // by the limits
	Others    []string               `json:"others"`       // other hosts that answer ARP for our addresses
	Network   []string               `json:"network"`      // differences from the desired network
	AgentsSee map[string][]string    `json:"agents_see"`   // problems that agents see, by sibling
	Dropped   []string               `json:"dropped"`      // containers that no packet of agents reaches
	Files     []string               `json:"engine_files"` // differences in the files that Docker provides
	Program   []string               `json:"program"`      // the program's command line
	Processes []string               `json:"processes"`    // unexpected or missing processes
	Restarts  []start.Restart        `json:"restarts"`     // of helpers, since the container's start
	Signer    string                 `json:"signer"`       // why the signer does not answer, or ""
	Secrets   int                    `json:"secrets"`      // number of request secrets in the signer
	Unhealthy string                 `json:"unhealthy"`    // why a health check would fail now, or ""
	Error     string                 `json:"error"`        // why the program did not answer, or ""
	Verbs     []string               `json:"verbs"`        // fwctl's commands
}

// Thoroughness is whether a probe includes the agents' view of Envoy, and waits first for a starting program.
type Thoroughness struct{ Envoy, Starting bool }

// A starting program is checked every startingEvery, up to startingLongest, because another probe would cost more.
const (
	startingEvery   = 20 * time.Millisecond
	startingLongest = 3 * time.Second
)

// await waits until a starting program is ready.
func (t Thoroughness) await(ready func() error) {
	for end := time.Now().Add(startingLongest); t.Starting && ready() != nil && time.Now().Before(end); {
		time.Sleep(startingEvery)
	}
}

// Run collects the whole report. An unreadable part is reported in its own field or in Error, never left out.
// `how.Envoy` is true unless Docker says that Envoy isn't running: waiting for a missing Envoy takes as long as
// everything else.
//
// Parts that need privileges come first. Then `restrict` drops these, before any other process is asked.
func Run(root string, sibling boot.Sibling, program serving.Program, how Thoroughness, restrict func() error) Report {
	how.await(start.Supervised)
	report := Report{Protocol: Protocol, Sibling: sibling.Name, Claimed: arp.Claimed(root), Live: map[string]string{}}
	report.Addresses = kernel.Addresses()
	others, othersError := arp.AskForOthers()
	report.Network = kernel.Differences(sibling)
	refused, refusedError := kernel.RefusedSources()
	report.Refused = refused
	hostname, _ := os.Hostname() // without it, each line with the name is a difference
	report.Files = orUnreadable(engineFileDifferences(engineFolder, hostname, sibling))
	if status, err := start.AskSupervisor(); err != nil {
		report.Program, report.Processes = orUnreadable(nil, err), orUnreadable(nil, err)
	} else {
		report.Restarts = status.Restarts
		report.Program = orUnreadable(start.CommandOf(users.Processes, strconv.Itoa(status.Program)))
		report.Processes = orUnreadable(start.ProcessDifferences(users.Processes, root, sibling, status))
	}
	if err := restrict(); err != nil {
		report.Error = err.Error()
		return report
	}
	how.await(func() error { return hot.Check(root, sibling.Resources, program) })
	report.AgentsSee, report.Dropped = attempts.AgentsSee(root, sibling, how.Envoy)
	live, err := program.Live(sibling.Resources)
	if err == nil {
		report.Live, report.Evidence = live, program.Evidence()
		report.Build, err = program.Build()
	}
	if err == nil {
		report.Telemetry, err = program.Telemetry()
	}
	if err == nil {
		report.Failed, err = program.FailedChecks()
	}
	if sibling.Signer != nil {
		status, silent := signing.Ask(sibling.Signer.Folder)
		if silent != nil {
			report.Signer = silent.Error()
		}
		report.Secrets = status.Secrets
	}
	if unhealthy := hot.Check(root, sibling.Resources, program); unhealthy != nil {
		report.Unhealthy = unhealthy.Error()
	}
	if err = cmp.Or(err, refusedError); err != nil {
		report.Error = err.Error()
	}
	if othersError != nil {
		report.Others = orUnreadable(nil, othersError)
	} else {
		report.Others = others.Answers()
	}
	return report
}

func orUnreadable(lines []string, err error) []string {
	if err != nil {
		return []string{"unreadable: " + err.Error()}
	}
	return lines
}

const healthAgain = 500 * time.Millisecond

// Health is the container's HEALTHCHECK. A failed check is repeated, so that one result is enough: Docker starts a
// process for each, which costs more than the check itself.
func Health(root string, sibling boot.Sibling, program serving.Program, supervised func() error) error {
	if healthy(root, sibling, program, supervised) == nil {
		return nil
	}
	time.Sleep(healthAgain)
	return healthy(root, sibling, program, supervised)
}

// healthy is one check. In CoreDNS's container it includes the agents' view of Envoy.
func healthy(root string, sibling boot.Sibling, program serving.Program, supervised func() error) error {
	if err := hot.Check(root, sibling.Resources, program); err != nil {
		return err
	}
	if err := supervised(); err != nil {
		return err
	}
	return attempts.AgentsAreServed(root, sibling)
}

const engineFolder = "/etc"

// commonHosts are optional lines of /etc/hosts, depending on Docker's version.
var commonHosts = []string{
	"::1 localhost ip6-localhost ip6-loopback",
	"fe00::0 ip6-localnet", "fe00:: ip6-localnet",
	"ff00::0 ip6-mcastprefix", "ff00:: ip6-mcastprefix",
	"ff02::1 ip6-allnodes", "ff02::2 ip6-allrouters",
}

// decisive are the keywords of /etc/resolv.conf that affect lookups (resolv.conf(5)). Docker 25 and later keep all
// other lines of the host's file, such as `sortlist` or `lookup`.
var decisive = []string{"domain", "nameserver", "options", "search"}

// engineFileDifferences compares Docker's files with those of any supported version. It ignores comments, spacing
// and irrelevant lines. These files matter because the program resolves names with them.
func engineFileDifferences(folder, hostname string, sibling boot.Sibling) ([]string, error) {
	expected := kernel.Expect("/etc/hostname: "+hostname, "/etc/hosts: 127.0.0.1 localhost")
	for _, line := range sibling.ResolvConf {
		expected.Add("/etc/resolv.conf: " + line)
	}
	for _, line := range commonHosts {
		expected.Allow("/etc/hosts: " + line)
	}
	for _, iface := range sibling.Interfaces {
		expected.Allow(fmt.Sprintf("/etc/hosts: %s %s", iface.Address, hostname))
	}
	var lines []string
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			meaning, _, _ := strings.Cut(line, "#")
			words := strings.Fields(meaning)
			if len(words) > 0 && (name != "resolv.conf" || slices.Contains(decisive, words[0])) {
				lines = append(lines, fmt.Sprintf("/etc/%s: %s", name, strings.Join(words, " ")))
			}
		}
	}
	differences := expected.Differences(lines)
	slices.Sort(differences)
	return slices.Compact(differences), nil
}
