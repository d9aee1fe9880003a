// Command fwctl runs inside a sibling container and does what can't be done from outside: it configures the
// network before the real program starts, puts files into place while it runs, reports what is live, and claims or
// releases the service address.
//
// It makes no policy decisions. Its instructions are a file that clawker-fw renders, boot/sibling.json, and what it is sent.
// Every verb prints one JSON object a line and exits 0, or one line on stderr and exits 1.
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

// root is the sibling's volume. fwctl reads and writes files only below it.
const root = "/fw"

// verb is what fwctl can be told to do: how many arguments it needs at least, what privileges, and what does it. What that
// returns is printed as JSON, unless it is nothing. docs/how-it-works.md explains each.
type verb struct {
	name, arguments string
	least           int
	capabilities    []uint
	run             func(arguments []string) (any, error)
}

// What verbs need. Whatever asks the packet filter has to have CAP_NET_ADMIN, even to read it (nfnetlink_rcv() in
// net/netfilter/nfnetlink.c). Who looks at another process's executable needs all that the other has (cap_ptrace_access_check()
// in security/commoncap.c): a probe needs what other verbs keep. It gives that up before it asks the program.
var (
	none    = []uint{}
	network = []uint{unix.CAP_NET_ADMIN}
	claims  = []uint{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}
	files   = []uint{unix.CAP_CHOWN, unix.CAP_SETUID}
	kernels = []uint{unix.CAP_NET_ADMIN, unix.CAP_SETUID}
	probing = []uint{unix.CAP_CHOWN, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SETUID}
)

const relayed = "ADDRESS/BITS ADDRESS/BITS GATEWAY AGENT PORT..."

// verbNames is filled before a verb runs: the table can't name itself.
var verbNames []string

var verbs = []verb{
	{"serve", "-- PROGRAM [ARG ...]", 2, nil, inSibling(serve)},
	{"record", "", 0, none, inSibling(record)},
	{"forward", "LISTEN UPSTREAM SUBTREES AGENTS EGRESS", 5, none, forward},
	{"sign", "FOLDER NAMES INTERMEDIATES", 3, none, sign},
	{"secrets", "SIZE", 1, none, with(octets, giveSecrets)},
	{"probe", "[starting] [without-envoy] [known=EVIDENCE]", 0, probing, inSibling(report)},
	{"suppressed", "", 0, network, inSibling(countUntold)},
	{"usage", "", 0, none, inSibling(used)},
	{"lookup", "NAME", 1, none, inSibling(lookup)},
	{"proxy", "SIZE", 1, none, with(octets, func(s boot.Sibling, size int64) (any, error) { return attempts.TryProxy(s.Tables, size, os.Stdin) })},
	{"try", "NAME PROTOCOL PORT [METHOD PATH]", 3, none, inSibling(try)},
	{"attempts", "", 0, nil, func([]string) (any, error) { return nil, attempts.Do(root, os.Stdout) }},
	{"see", "EYE", 1, network, inSibling(func(_ boot.Sibling, words []string) (any, error) { return attempts.See(words[0]) })},
	{"relay", relayed, 5, nil, func(words []string) (any, error) { return nil, start.Relay(root, words) }},
	{"carry", relayed, 5, none, func(words []string) (any, error) { return nil, relay.Carry(words) }},
	{"relayed", relayed, 5, network, inspectRelay},
	{"requirements", "", 0, kernels, func([]string) (any, error) { return kernel.CheckRequirements(), nil }},
	{"health", "", 0, none, inSibling(health)},
	{"commit-in-place", "SIZE", 1, files, with(octets, commit)},
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
	// `attempts` does with an agent's privileges what agents do; `serve` and `relay` give up theirs before they execute a program.
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

// report reports what is live.
func report(sibling boot.Sibling, words []string) (any, error) {
	known, err := readEvidence(words)
	if err != nil {
		return nil, err
	}
	answer := probe.Run(root, sibling, serving.Of(sibling, known), probe.Thoroughness{
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

// drain reads no file of the sibling's, which another release may have made.
func drain(words []string) (any, error) {
	limit, err := seconds(words[0])
	if err != nil {
		return nil, err
	}
	envoy := serving.NewEnvoy(serving.AdminSocket, nil)
	return nil, serving.Drain(envoy, limit, func(now serving.Draining) error { return tell(now) })
}

// usedNow is what agents have used, and how many connections are open, which count when they end.
type usedNow struct {
	usage.History
	Open map[string]int `json:"open"` // connections, by port
}

func used(boot.Sibling, []string) (any, error) {
	open, err := serving.OpenConnections(serving.AdminSocket)
	if err != nil {
		return nil, err
	}
	known, err := usage.Ask(usage.Socket)
	return usedNow{known, open}, err
}

// untold counts the refusals since the program's start of which no line tells: by source the queries and datagrams that the
// limits have dropped. (Of connections, the limits also count those that a line tells of.) It has as well how many lines were
// written about others.
type untold struct {
	Refusals uint64 `json:"refusals"` // 0: programs of earlier releases counted some
	refusals.Written
	Dropped map[string]uint64 `json:"dropped"`
}

func countUntold(boot.Sibling, []string) (any, error) {
	answer := untold{Dropped: map[string]uint64{}}
	written, err := refusals.AskWritten(refusals.Socket)
	if err == nil { // or the recorder is about to be started again
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

// giveSecrets passes on what is sent on the standard input. It is in no argument, where others could see it.
func giveSecrets(sibling boot.Sibling, size int64) (any, error) {
	if sibling.Signer == nil {
		return nil, errors.New("this sibling has no signer")
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

func octets(word string) (int64, error) { return strconv.ParseInt(word, 10, 64) }

const evidencePrefix = "known="

func readEvidence(arguments []string) (serving.Evidence, error) {
	var known serving.Evidence
	for _, argument := range arguments {
		if text, ok := strings.CutPrefix(argument, evidencePrefix); ok {
			if err := json.Unmarshal([]byte(text), &known); err != nil {
				return nil, fmt.Errorf("evidence: %w", err)
			}
		}
	}
	return known, nil
}

// tellTaken returns what says that the program has taken the files, and lets it rest before it is asked for proof. Whether
// anybody hears it decides nothing about the commit.
func tellTaken() func() {
	began := time.Now()
	return func() {
		rest := min(time.Since(began)/2, longestRest)
		_ = tell(hot.Taken{Taken: true})
		time.Sleep(rest)
	}
}

// longestRest bounds for how long a program is left alone, half as long as it was busy. While Envoy loads thousands of rules it
// looks up no new name, and neither does it while it prints them: in between, it does what had to wait.
const longestRest = 500 * time.Millisecond

func seconds(word string) (time.Duration, error) {
	duration, err := time.ParseDuration(word + "s")
	if err != nil || duration < 0 {
		return 0, fmt.Errorf("not a number of seconds: %q", word)
	}
	return duration, nil
}
