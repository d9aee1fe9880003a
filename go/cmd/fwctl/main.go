// Command fwctl runs inside a sibling container and does what can't be done from outside: it configures the
// network before the real program starts, moves staged files into place, reports what is live, and claims or
// releases the service address.
//
// It makes no policy decisions. Its instructions are files that clawker-fw renders (boot/sibling.json,
// stage/commit.json). Every verb prints one JSON object a line and exits 0, or one line on stderr and exits 1.
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

	"clawker-fw/internal/arp"
	"clawker-fw/internal/attempts"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/hot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/lookups"
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

const help = `fwctl VERB
  serve -- PROGRAM [ARG ...]   configure the network, start the next, drop all privileges, execute PROGRAM
  keep                         start the next three, and start one again that has ended; end rules at their times
  record                       write down what the kernel refuses, read from the socket that serve has opened; serve
                               agents the page about what was refused to them; remember what agents use
  forward LISTEN UPSTREAM SUBTREES
                               answer Envoy's lookups from a name server, with bounds for each rule in a file
  sign FOLDER NAMES INTERMEDIATES
                               give Envoy certificates for the names in a file, signed by those in another, and secrets;
                               the sockets for that are in a folder
  secrets SIZE                 give the signer what is on the standard input, SIZE octets of JSON: all secrets, or only a key
                               to report by what there are
  probe [starting] [without-envoy] [known=EVIDENCE]
                               report what is live, as one JSON object: all of it, or all but what agents see of
                               Envoy; EVIDENCE is from an earlier report, and saves reading what has not changed
                               since; of a program that is starting, wait for some seconds until it serves
  suppressed                   report how many refusals the program has counted and tells of in no line, and how many
                               queries and datagrams the limits have dropped of each agent; how many lines about others
                               were written
  usage                        report what agents have used of what the rules allow
  inherit-usage SIZE           add what a sibling knew of that which this one has replaced: SIZE octets of JSON from the
                               standard input
  lookup NAME                  resolve NAME as Envoy does, and report which sources may reach its addresses
  try NAME PROTOCOL PORT [METHOD PATH]
                               do what an agent does to use NAME, or to make a request to it, and report each step
  attempts                     in an agent's container: do what boot/attempts.json says, and report each outcome
  see EYE                      report what agents would see of an Envoy: its address and ports, as JSON
  relay ADDRESS/BITS ADDRESS/BITS GATEWAY AGENT PORT...
                               in a relay's container: configure the network, listen on the publishing network (the second
                               address; its gateway, or - to answer there alone), drop all privileges, and carry
  carry ...                    pass connections on to AGENT, at the sockets that relay has opened
  relayed ADDRESS/BITS ADDRESS/BITS GATEWAY AGENT PORT...
                               report what differs in a relay's network, and its ports on which nobody listens
  requirements                 in a container of its own: report what the kernel lacks that a sibling needs
  health                       exit 0 when the program serves the committed version
  commit                       put the files in stage/ in place, prove them live, or restore the old ones; report when
                               the program has taken them, and then the result
  commit-in-place SIZE         do so with files from the standard input, a tar of SIZE octets, without room on the disk
  end                          put in place what rules that have ended leave, prove it live, or restore the old files;
                               undo a commit that has died
  claim SECONDS                take the service address and announce it for SECONDS
  release                      keep answering at the service address, but stop answering ARP for it
  drain SECONDS                stop listening, then wait for open connections, for at most SECONDS
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "fwctl: %v\n", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return fmt.Errorf("no verb given\n%s", help)
	}
	verb, rest := arguments[0], arguments[1:]
	if verb == start.ForwardVerb {
		return lookups.Forward(rest, start.GivenSockets())
	}
	if verb == start.SignVerb {
		return signing.Sign(rest, start.GivenSockets())
	}
	if verb == "attempts" { // in an agent's container, which is no sibling
		return attempts.Do(root, os.Stdout)
	}
	switch verb { // in a relay's container
	case "relay":
		return start.Relay(root, rest)
	case start.CarryVerb:
		return relay.Carry(rest)
	case "relayed":
		settings, err := relay.Parse(rest)
		if err != nil {
			return err
		}
		return answerUnless(settings.Inspect())
	}
	if verb == "requirements" { // in a container that is neither
		return answer(kernel.CheckRequirements())
	}
	sibling, err := boot.Read(root)
	if err != nil {
		return err
	}
	switch verb {
	case "serve":
		if len(rest) < 2 || rest[0] != "--" {
			return fmt.Errorf("serve needs `--` and a program to execute")
		}
		return start.Serve(root, sibling, rest[1:])
	case start.KeepVerb:
		return start.Keep(root, sibling)
	case start.RecordVerb:
		return record(sibling, start.GivenSockets())
	case "probe":
		known, err := readEvidence(rest)
		if err != nil {
			return err
		}
		// A client of an earlier release also says `quick`, and accepts a whole report.
		return answer(probe.Run(root, sibling, serving.Of(sibling, known), probe.Thoroughness{
			Envoy: !slices.Contains(rest, "without-envoy"), Starting: slices.Contains(rest, "starting"),
		}))
	case "suppressed":
		return answerUnless(countUntold(sibling))
	case "lookup":
		if len(rest) != 1 {
			return fmt.Errorf("lookup needs exactly one name")
		}
		return answerUnless(attempts.Resolve(sibling.Tables, &net.Resolver{PreferGo: true}, rest[0]))
	case "see":
		if len(rest) != 1 {
			return fmt.Errorf("see needs exactly one argument: an address and ports, as JSON")
		}
		return answerUnless(attempts.See(rest[0]))
	case "try":
		return answerUnless(attempts.Try(sibling, rest))
	case "health":
		return probe.Health(root, sibling, serving.Of(sibling, nil))
	case "commit":
		began := time.Now()
		taken := func() { tellTaken(time.Since(began)) }
		return answerUnless(hot.Commit(root, sibling.Resources, serving.Of(sibling, nil), time.Now, taken))
	case commitInPlaceVerb:
		return answerInPlace(rest, sibling)
	case "secrets":
		return giveSecrets(rest, sibling)
	case "usage":
		return answerUnless(used())
	case inheritVerb:
		size, err := octets(inheritVerb, rest)
		if err != nil {
			return err
		}
		return answerUnless(usage.Give(usage.Socket, size, os.Stdin))
	case start.EndVerb:
		return hot.EndRules(root, sibling.Resources, serving.Of(sibling, nil), time.Now)
	case "claim":
		announce, err := seconds(rest)
		if err != nil {
			return err
		}
		return arp.Claim(root, sibling, announce)
	case "release":
		return arp.Release(root, sibling)
	case "drain":
		limit, err := seconds(rest)
		if err != nil {
			return err
		}
		return serving.Drain(serving.NewEnvoy(serving.AdminSocket, nil), limit, func(now serving.Draining) error { return answer(now) })
	}
	return fmt.Errorf("unknown verb %q\n%s", verb, help)
}

const (
	commitInPlaceVerb = "commit-in-place"
	inheritVerb       = "inherit-usage"
)

// usedNow is what agents have used, and how many connections are open, which count when they end.
type usedNow struct {
	usage.History
	Open map[string]int `json:"open"` // connections, by port
}

func used() (usedNow, error) {
	known, err := usage.Ask(usage.Socket)
	if err != nil {
		return usedNow{}, err
	}
	open, err := serving.OpenConnections(serving.AdminSocket)
	return usedNow{known, open}, err
}

// untold counts the refusals since the program's start of which no line tells: those that it has counted, and by source the
// queries and datagrams that the limits have dropped. (Of connections, the limits also count those that a line tells of.) It
// has as well how many lines were written about others.
type untold struct {
	serving.Suppressed
	refusals.Written
	Dropped map[string]uint64 `json:"dropped"`
}

func countUntold(sibling boot.Sibling) (untold, error) {
	counted, err := serving.Of(sibling, nil).Suppressed()
	if err != nil {
		return untold{}, err
	}
	written, err := refusals.AskWritten(refusals.Socket)
	if err != nil { // the recorder is about to be started again
		written = refusals.Written{}
	}
	limited, err := kernel.RefusedSources()
	found := untold{counted, written, map[string]uint64{}}
	for _, each := range limited {
		if dropped := each.Queries + each.Datagrams; dropped > 0 {
			found.Dropped[each.Source.String()] = dropped
		}
	}
	return found, err
}

// record records refusals, serves the page about them if this sibling has one, and remembers what is used if it does so.
func record(sibling boot.Sibling, given []*os.File) error {
	sockets := 3
	if sibling.Page != nil {
		sockets++
	}
	if len(given) < sockets {
		return fmt.Errorf("%s needs the sockets that its keeper gives it", start.RecordVerb)
	}
	var forPage *os.File
	if sibling.Page != nil {
		forPage = given[3]
	}
	var used refusals.Used
	if sibling.Usage != nil {
		keeper, err := usage.Keep(given[sockets:], sibling.Usage.Except)
		if err != nil {
			return err
		}
		used = keeper
	}
	return refusals.Record(root, sibling, given[0], given[1], given[2], forPage, os.Stdout, used)
}

// giveSecrets passes on what is sent on the standard input. It is in no argument, where others could see it.
func giveSecrets(arguments []string, sibling boot.Sibling) error {
	size, err := octets("secrets", arguments)
	if err != nil {
		return err
	}
	if sibling.Signer == nil {
		return errors.New("this sibling has no signer")
	}
	said, err := signing.ReadGiving(size, os.Stdin)
	if err != nil {
		return err
	}
	if held, err := signing.GiveSecrets(sibling.Signer.Folder, said); err != nil {
		return answerUnless(serving.Used{Held: held}, err)
	}
	only := signing.Giving{Key: said.Key}
	return answerUnless(serving.UsedSecrets(serving.AdminSocket, sibling.Signer.Secrets, func() (signing.Held, error) {
		return signing.GiveSecrets(sibling.Signer.Folder, only)
	}))
}

func octets(verb string, arguments []string) (int64, error) {
	if len(arguments) != 1 {
		return 0, fmt.Errorf("%s needs exactly one argument: how many octets are sent", verb)
	}
	return strconv.ParseInt(arguments[0], 10, 64)
}

// answerInPlace commits what is sent on the standard input.
func answerInPlace(arguments []string, sibling boot.Sibling) error {
	size, err := octets(commitInPlaceVerb, arguments)
	if err != nil {
		return err
	}
	sent, err := hot.ReadSent(size, os.Stdin)
	if err != nil {
		return err
	}
	began := time.Now()
	taken := func() { tellTaken(time.Since(began)) }
	return answerUnless(hot.CommitSent(root, sent, sibling.Resources, serving.Of(sibling, nil), time.Now, taken))
}

const evidencePrefix = "known="

// readEvidence returns the evidence among the arguments of probe, if there is any.
func readEvidence(arguments []string) (serving.Evidence, error) {
	var known serving.Evidence
	for _, each := range arguments {
		if text, found := strings.CutPrefix(each, evidencePrefix); found {
			if err := json.Unmarshal([]byte(text), &known); err != nil {
				return nil, fmt.Errorf("evidence: %w", err)
			}
		}
	}
	return known, nil
}

// tellTaken says that the program has taken the files, after so long, and lets it rest before it is asked for proof.
// Whether anybody hears it decides nothing about the commit.
func tellTaken(after time.Duration) {
	_ = answer(hot.Taken{Taken: true})
	time.Sleep(restAfter(after))
}

// restAfter returns for how long a program is left alone that was busy for so long. While Envoy loads thousands of rules
// it looks up no new name, and neither does it while it prints them: in between, it does what had to wait.
func restAfter(busy time.Duration) time.Duration { return min(busy/2, longestRest) }

const longestRest = 500 * time.Millisecond

func seconds(arguments []string) (time.Duration, error) {
	if len(arguments) != 1 {
		return 0, fmt.Errorf("exactly one argument is needed: a number of seconds")
	}
	duration, err := time.ParseDuration(arguments[0] + "s")
	if err != nil || duration < 0 {
		return 0, fmt.Errorf("not a number of seconds: %q", arguments[0])
	}
	return duration, nil
}

func answerUnless[T any](value T, err error) error {
	if err != nil {
		return err
	}
	return answer(value)
}

func answer(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}
