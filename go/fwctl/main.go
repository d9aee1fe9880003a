// Command fwctl runs inside a sibling container and does there what can't be done from outside: it gives the
// network its shape before the real program starts, moves staged files into place, says what is live, and
// takes or gives up the service address.
//
// It decides nothing. What to do stands in files that the tool renders (boot/sibling.json, stage/commit.json);
// every verb answers with one JSON object a line and exits 0, or with one line on stderr and exits 1.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// root is the volume that every sibling has; everything fwctl reads or writes is below it.
const root = "/fw"

const usage = `fwctl VERB
  serve -- PROGRAM [ARG ...]   shape the network, drop every privilege, become PROGRAM
  probe                        what is live, as one JSON object
  health                       exit 0 when the program serves the committed version
  commit                       move stage/ into hot/ in order, prove it live, or put the old files back
  claim SECONDS                take the service address and announce it for that long
  release                      go on answering at the service address, but let nobody find it here
  drain SECONDS                stop listening, wait until no connection is left or the time is over
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "fwctl: %v\n", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return fmt.Errorf("no verb\n%s", usage)
	}
	verb, rest := arguments[0], arguments[1:]
	sibling, err := readSibling(root)
	if err != nil {
		return err
	}
	switch verb {
	case "serve":
		if len(rest) < 2 || rest[0] != "--" {
			return fmt.Errorf("serve needs -- and a program")
		}
		return serve(root, sibling, rest[1:])
	case "probe":
		return answer(probe(root, sibling, sibling.program()))
	case "health":
		return health(root, sibling, sibling.program())
	case "commit":
		result, err := commit(root, sibling.Resources, sibling.program(), time.Now)
		if err != nil {
			return err
		}
		return answer(result)
	case "claim":
		announce, err := seconds(rest)
		if err != nil {
			return err
		}
		return claim(root, sibling, announce)
	case "release":
		return release(root, sibling)
	case "drain":
		limit, err := seconds(rest)
		if err != nil {
			return err
		}
		return drain(newEnvoy(adminSocket), limit)
	}
	return fmt.Errorf("no verb %q\n%s", verb, usage)
}

func seconds(arguments []string) (time.Duration, error) {
	if len(arguments) != 1 {
		return 0, fmt.Errorf("exactly one duration is needed, in seconds")
	}
	duration, err := time.ParseDuration(arguments[0] + "s")
	if err != nil || duration < 0 {
		return 0, fmt.Errorf("not a number of seconds: %q", arguments[0])
	}
	return duration, nil
}

func answer(value any) error {
	return json.NewEncoder(os.Stdout).Encode(value)
}
