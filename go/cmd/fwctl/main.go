// Command fwctl runs inside a firewall container and does the work that needs to be inside: it configures the
// network before the program starts, applies files while it runs, reports its state, and takes over or releases
// the service address.
//
// It makes no policy decisions. Its instructions are boot/sibling.json, which clawker-fw renders, and its standard
// input. Each verb prints JSON objects, one per line, and exits with 0, or one line on stderr and exits with 1.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/attempts"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/lookups"
	"clawker-fw/internal/privileges"
	"clawker-fw/internal/probe"
	"clawker-fw/internal/refusals"
	"clawker-fw/internal/relay"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/signing"
	"clawker-fw/internal/start"
	"clawker-fw/internal/usage"
)

// root is the container's volume. fwctl reads and writes files only below it.
const root = "/fw"

// verb is a command of fwctl, with its fewest arguments and its capabilities. The result of run is printed as
// JSON, unless it is nil. docs/how-it-works.md explains the verbs.
type verb struct {
	name, arguments string
	least           int
	capabilities    []uint
	run             func(arguments []string) (any, error)
}

// Capabilities of verbs. Reading the packet filter needs CAP_NET_ADMIN (nfnetlink_rcv() in
// net/netfilter/nfnetlink.c). Reading another process's executable needs all its capabilities
// (cap_ptrace_access_check() in security/commoncap.c), so a probe has those of the other verbs at first.
var (
	none    = []uint{}
	network = []uint{unix.CAP_NET_ADMIN}
	claims  = []uint{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}
	files   = []uint{unix.CAP_CHOWN, unix.CAP_SETUID}
	kernels = []uint{unix.CAP_NET_ADMIN, unix.CAP_SETUID}
	probing = []uint{unix.CAP_CHOWN, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SETUID}
)

const relayed = "ADDRESS/BITS ADDRESS/BITS GATEWAY AGENT PORT..."

// verbNames is filled before a verb runs, because the table can't refer to itself.
var verbNames []string

var verbs = []verb{
	{"serve", "-- PROGRAM [ARG ...]", 2, nil, inSibling(serve)},
	{"record", "", 0, none, inSibling(record)},
	{"forward", "LISTEN UPSTREAM SUBTREES AGENTS EGRESS", 5, none, forward},
	{"sign", "FOLDER NAMES INTERMEDIATES", 3, none, sign},
	{"secrets", "SIZE", 1, none, with(parseSize, giveSecrets)},
	{"probe", "[starting] [without-envoy] [known=EVIDENCE]", 0, probing, inSibling(report)},
	{"suppressed", "", 0, network, inSibling(countUntold)},
	{"usage", "", 0, none, inSibling(used)},
	{"lookup", "NAME", 1, none, inSibling(lookup)},
	{"proxy", "SIZE", 1, none, with(parseSize, tryProxy)},
	{"try", "NAME PROTOCOL PORT [METHOD PATH]", 3, none, inSibling(try)},
	{"attempts", "", 0, nil, func([]string) (any, error) { return nil, attempts.Do(root, os.Stdout) }},
	{"see", "EYE", 1, network, inSibling(func(_ boot.Sibling, words []string) (any, error) { return attempts.See(words[0]) })},
	{"relay", relayed, 5, nil, func(words []string) (any, error) { return nil, start.Relay(root, words) }},
	{"carry", relayed, 5, none, func(words []string) (any, error) { return nil, relay.Carry(words) }},
	{"relayed", relayed, 5, network, inspectRelay},
	{"requirements", "", 0, kernels, func([]string) (any, error) { return kernel.CheckRequirements(), nil }},
	{"health", "", 0, none, inSibling(health)},
	{"commit-in-place", "SIZE", 1, files, with(parseSize, commit)},
	{"end", "", 0, files, inSibling(end)},
	{"claim", "SECONDS", 1, claims, with(seconds, claim)},
	{"release", "", 0, network, inSibling(func(sibling boot.Sibling, _ []string) (any, error) { return nil, arp.Release(root, sibling) })},
	{"drain", "SECONDS", 1, network, drain},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "fwctl: %v\n", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return fmt.Errorf("no verb given\n%s", help())
	}
	name, words := arguments[0], arguments[1:]
	for _, verb := range verbs {
		verbNames = append(verbNames, verb.name)
	}
	at := slices.Index(verbNames, name)
	if at < 0 {
		return fmt.Errorf("unknown verb %q\n%s", name, help())
	}
	if len(words) < verbs[at].least {
		return fmt.Errorf("%s needs %s", name, verbs[at].arguments)
	}
	// `attempts` needs an agent's privileges; `serve` and `relay` drop theirs before they execute a program.
	if needed := verbs[at].capabilities; needed != nil {
		if err := privileges.Keep(needed...); err != nil {
			return err
		}
	}
	answer, err := verbs[at].run(words)
	if err != nil || answer == nil {
		return err
	}
	return tell(answer)
}

func help() string {
	text := "fwctl VERB"
	for _, verb := range verbs {
		text += fmt.Sprintf("\n  %s %s", verb.name, verb.arguments)
	}
	return text
}

func tell(answer any) error { return json.NewEncoder(os.Stdout).Encode(answer) }

func inSibling(run func(boot.Sibling, []string) (any, error)) func([]string) (any, error) {
	return func(words []string) (any, error) {
		sibling, err := boot.Read(root)
		if err != nil {
			return nil, err
		}
		return run(sibling, words)
	}
}

func with[T any](parse func(string) (T, error), run func(boot.Sibling, T) (any, error)) func([]string) (any, error) {
	return inSibling(func(sibling boot.Sibling, words []string) (any, error) {
		argument, err := parse(words[0])
		if err != nil {
			return nil, err
		}
		return run(sibling, argument)
	})
}

func serve(sibling boot.Sibling, words []string) (any, error) {
	if words[0] != "--" {
		return nil, errors.New("serve needs `--` and a program to execute")
	}
	return nil, start.Serve(root, sibling, words[1:])
}

// report runs a probe.
func report(sibling boot.Sibling, words []string) (any, error) {
	evidence, err := readEvidence(words)
	if err != nil {
		return nil, err
	}
	answer := probe.Run(root, sibling, serving.Of(sibling, evidence), probe.Thoroughness{
		Envoy: !slices.Contains(words, "without-envoy"), Starting: slices.Contains(words, "starting"),
	}, func() error { return privileges.Keep(network...) })
	answer.Verbs = verbNames
	return answer, nil
}

func forward(words []string) (any, error) { return nil, lookups.Forward(words, start.GivenSockets()) }

func sign(words []string) (any, error) { return nil, signing.Sign(words, start.GivenSockets()) }

func lookup(sibling boot.Sibling, words []string) (any, error) {
	return attempts.Resolve(sibling.Tables, &net.Resolver{PreferGo: true}, words[0])
}

func try(sibling boot.Sibling, words []string) (any, error) { return attempts.Try(sibling, words) }

func tryProxy(sibling boot.Sibling, size int64) (any, error) {
	return attempts.TryProxy(sibling.Tables, size, os.Stdin)
}

func health(sibling boot.Sibling, _ []string) (any, error) {
	return nil, probe.Health(root, sibling, serving.Of(sibling, nil), start.Supervised)
}

func volumeOf(sibling boot.Sibling) hot.Volume {
	return hot.Volume{Root: root, Resources: sibling.Resources, Program: serving.Of(sibling, nil), Now: time.Now}
}

func commit(sibling boot.Sibling, size int64) (any, error) {
	return volumeOf(sibling).Commit(size, os.Stdin, tellTaken())
}

func end(sibling boot.Sibling, _ []string) (any, error) {
	return nil, volumeOf(sibling).EndRules()
}

func inspectRelay(words []string) (any, error) {
	settings, err := relay.Parse(words)
	if err != nil {
		return nil, err
	}
	return settings.Inspect()
}

func claim(sibling boot.Sibling, announce time.Duration) (any, error) {
	return nil, arp.Claim(root, sibling, announce)
}

// drain doesn't read boot/sibling.json, which another release may have written.
func drain(words []string) (any, error) {
	limit, err := seconds(words[0])
	if err != nil {
		return nil, err
	}
	envoy := serving.NewEnvoy(serving.AdminSocket, nil)
	return nil, serving.Drain(envoy, limit, func(now serving.Draining) error { return tell(now) })
}

// usedNow is the use of rules, plus the open connections, which count only when they end.
type usedNow struct {
	usage.History
	Open map[string]int `json:"open"` // connections, by port
}

func used(boot.Sibling, []string) (any, error) {
	open, err := serving.OpenConnections(serving.AdminSocket)
	if err != nil {
		return nil, err
	}
	history, err := usage.Ask(usage.Socket)
	return usedNow{history, open}, err
}

// untold counts refusals since the program's start that have no log line: the queries and datagrams that the
// limits dropped, by source. (The limits' counts of connections include logged ones.)
type untold struct {
	Refusals uint64 `json:"refusals"` // always 0, for clients of earlier releases
	refusals.Written
	Dropped map[string]uint64 `json:"dropped"`
}

func countUntold(boot.Sibling, []string) (any, error) {
	answer := untold{Dropped: map[string]uint64{}}
	written, err := refusals.AskWritten(refusals.Socket)
	if err == nil { // otherwise the recorder is restarting
		answer.Written = written
	}
	limited, err := kernel.RefusedSources()
	for _, refused := range limited {
		if dropped := refused.Queries + refused.Datagrams; dropped > 0 {
			answer.Dropped[refused.Source.String()] = dropped
		}
	}
	return answer, err
}

func record(sibling boot.Sibling, _ []string) (any, error) {
	return nil, refusals.Record(root, sibling, start.GivenSockets(), os.Stdout)
}

// giveSecrets passes standard input on. Secrets are never arguments, which other processes could read.
func giveSecrets(sibling boot.Sibling, size int64) (any, error) {
	if sibling.Signer == nil {
		return nil, errors.New("this container has no signer")
	}
	giving, err := signing.ReadGiving(size, os.Stdin)
	if err != nil {
		return nil, err
	}
	if _, err := signing.GiveSecrets(sibling.Signer.Folder, giving); err != nil {
		return nil, err
	}
	only := signing.Giving{Key: giving.Key}
	return serving.UsedSecrets(serving.AdminSocket, sibling.Signer.Secrets, func() (signing.Held, error) {
		return signing.GiveSecrets(sibling.Signer.Folder, only)
	})
}

func parseSize(word string) (int64, error) { return strconv.ParseInt(word, 10, 64) }

const evidencePrefix = "known="

func readEvidence(arguments []string) (serving.Evidence, error) {
	var evidence serving.Evidence
	for _, argument := range arguments {
		if text, ok := strings.CutPrefix(argument, evidencePrefix); ok {
			if err := json.Unmarshal([]byte(text), &evidence); err != nil {
				return nil, fmt.Errorf("evidence: %w", err)
			}
		}
	}
	return evidence, nil
}

// tellTaken returns a function that reports the program's acceptance of the files, then lets the program rest
// before it is asked for proof. A lost report doesn't affect the commit.
func tellTaken() func() {
	began := time.Now()
	return func() {
		rest := min(time.Since(began)/2, longestRest)
		_ = tell(hot.Taken{Taken: true})
		time.Sleep(rest)
	}
}

// longestRest limits that rest, which is half the time that the program was busy. Envoy resolves no new name while
// it loads or dumps thousands of rules, so it catches up in between.
const longestRest = 500 * time.Millisecond

func seconds(word string) (time.Duration, error) {
	duration, err := time.ParseDuration(word + "s")
	if err != nil || duration < 0 {
		return 0, fmt.Errorf("not a number of seconds: %q", word)
	}
	return duration, nil
}
