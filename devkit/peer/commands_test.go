package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Each line is run in turn, with its arguments as they are, and answered with its exit code and output.
func TestCommands(t *testing.T) {
	script := `echo "$1"; echo unseen >&2; case $1 in 7) exit 7;; killed) kill -9 $$;; esac`
	var input, output bytes.Buffer
	for _, argument := range []string{"a b\n<>", "7", "killed"} {
		line, _ := json.Marshal([]string{"-c", script, "sh", argument})
		input.Write(append(line, '\n'))
	}
	if err := runCommands(t.Context(), "/bin/sh", &input, &printer{writer: &output}); err != nil {
		t.Fatal(err)
	}
	var got []commandResult
	for line := range strings.Lines(output.String()) {
		got = append(got, decode[commandResult](t, line))
	}
	want := []commandResult{{0, "a b\n<>\n"}, {7, "7\n"}, {128 + 9, "killed\n"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

// An empty line asks the command that runs to end, which says then what it says at its end.
func TestCommandAskedToEnd(t *testing.T) {
	input, lines := io.Pipe()
	answers, output := io.Pipe()
	go func() { _ = runCommands(t.Context(), "/bin/sh", input, &printer{writer: output}) }()
	begun := filepath.Join(t.TempDir(), "begun")
	script := `trap 'echo ended; exit 3' TERM; touch ` + begun + `; while :; do sleep 0.01; done`
	line, _ := json.Marshal([]string{"-c", script})
	_, _ = lines.Write(append(line, '\n'))
	for _, err := os.Stat(begun); err != nil; _, err = os.Stat(begun) {
		time.Sleep(10 * time.Millisecond)
	}
	_, _ = lines.Write([]byte("\n"))
	answer, err := bufio.NewReader(answers).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if got := decode[commandResult](t, answer); got != (commandResult{3, "ended\n"}) {
		t.Errorf("%+v", got)
	}
	_ = lines.Close()
}

// What is no array of arguments ends the program: its answer would be taken for that to another line.
func TestCommandsRefused(t *testing.T) {
	for _, line := range []string{"get\n", "[1]\n", "{}\n"} {
		var output bytes.Buffer
		err := runCommands(t.Context(), "/bin/sh", strings.NewReader(line), &printer{writer: &output})
		if err == nil || output.Len() > 0 {
			t.Errorf("%q: %v, %q", line, err, &output)
		}
	}
}
