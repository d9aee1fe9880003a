package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"slices"
	"strings"
	"testing"
)

// Help names every verb.
func TestHelp(t *testing.T) {
	code, lines := run(t, "help")
	text := strings.Join(lines, "\n")
	if code != exitDone {
		t.Fatalf("exit code %d", code)
	}
	for _, verb := range verbs() {
		if !strings.Contains(text, "\n  "+verb.name+" ") {
			t.Errorf("help doesn't name %s", verb.name)
		}
		if code, _ := run(t, verb.name, "-h"); code != exitDone {
			t.Errorf("%s -h: exit code %d", verb.name, code)
		}
	}
}

// A command line that makes no sense ends with 2, says why on stderr and prints nothing on stdout.
func TestUsageErrors(t *testing.T) {
	for _, arguments := range [][]string{
		{},
		{"fly"},
		{"get"},
		{"get", "http://a.test", "http://b.test"},
		{"get", "a.test"},
		{"get", "ftp://a.test"},
		{"get", "http://a.test", "--header", "no-colon"},
		{"get", "http://a.test", "--timeout", "soon"},
		{"get", "http://a.test", "--nonsense"},
		{"resolve"},
		{"resolve", "a.test", "--type", "NONE-SUCH"},
		{"load"},
		{"load", "http://a.test", "--rate", "0"},
		{"load", "http://a.test", "--seconds", "-1"},
		{"keepalive", "http://a.test", "--interval", "0"},
		{"download"},
		{"probe-tcp", "a.test"},
		{"origin", "here"},
		{"origin", "--http", "70000"},
		{"dns", "--zone", "a.test"},
		{"dns", "--zone", "a.test=b.test"},
		{"dns", "--slow", "a.test"},
		{"dns", "--slow", "a.test=soon"},
		{"siege"},
		{"siege", "127.0.0.1:1", "--count", "0"},
		{"siege", "127.0.0.1:1", "--hex", "0"},
		{"netinfo", "all"},
		{"wait", "5"},
		{"commands", "wait"},
	} {
		t.Run(strings.Join(arguments, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := execute(t.Context(), arguments, &stdout, &stderr)
			if code != exitUsage || stderr.Len() == 0 || stdout.Len() != 0 {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, &stdout, &stderr)
			}
		})
	}
}

// Flags are understood before, between and after the arguments.
func TestParseInterspersed(t *testing.T) {
	for text, want := range map[string]struct {
		rest  []string
		limit int
		loud  bool
	}{
		"":                      {nil, 0, false},
		"a b":                   {[]string{"a", "b"}, 0, false},
		"--limit 3 a":           {[]string{"a"}, 3, false},
		"a --limit 3":           {[]string{"a"}, 3, false},
		"a -loud b --limit=3 c": {[]string{"a", "b", "c"}, 3, true},
	} {
		t.Run(text, func(t *testing.T) {
			flags := flag.NewFlagSet("test", flag.ContinueOnError)
			limit, loud := flags.Int("limit", 0, ""), flags.Bool("loud", false, "")
			rest, err := parseInterspersed(flags, strings.Fields(text))
			if err != nil || !slices.Equal(rest, want.rest) || *limit != want.limit || *loud != want.loud {
				t.Errorf("%v, limit %d, loud %v, error %v", rest, *limit, *loud, err)
			}
		})
	}
}

// The verbs that serve or sleep end with 0 when they are told to stop.
func TestStopping(t *testing.T) {
	for _, arguments := range [][]string{
		{"wait"},
		{"origin", "--http", "0", "--https", "0"},
		{"dns", "--listen", "127.0.0.1:0", "--zone", "a.test=127.0.0.1"},
	} {
		t.Run(arguments[0], func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			reader, writer := io.Pipe()
			ended := make(chan int, 1)
			go func() { ended <- execute(ctx, arguments, writer, io.Discard) }()
			line := make([]byte, 4096)
			count, err := reader.Read(line)
			if err != nil || !strings.Contains(string(line[:count]), `"event":"ready"`) {
				t.Fatalf("%q, error %v", line[:count], err)
			}
			cancel()
			if code := <-ended; code != exitDone {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// A port that is taken is an error of the peer, not of its usage.
func TestTakenPort(t *testing.T) {
	_, _, ready := startOrigin(t, "")
	taken := ports{ready.HTTP[0]}
	if code, _ := run(t, "origin", "--http", taken.String()); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
}
