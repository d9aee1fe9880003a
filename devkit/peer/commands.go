// The verb commands: command lines from standard input, one after another, each in a process of its own.
//
// An engine takes many times as long to start a program in a container as a process in it does. So who has many
// commands for one container starts this program there, once. An empty line asks the command that runs to end.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

type commandResult struct {
	Code   int    `json:"code"` // -1 if a signal has ended it
	Output string `json:"output"`
}

func declareCommands(*flag.FlagSet) action {
	return func(ctx context.Context, _ []string, out *printer) (bool, error) {
		program, err := os.Executable()
		if err != nil {
			return false, err
		}
		return true, runCommands(ctx, program, os.Stdin, out)
	}
}

// runCommands runs a program with the arguments of each line, a JSON array, until the input ends.
func runCommands(ctx context.Context, program string, input io.Reader, out *printer) error {
	lines, ends, failed := make(chan []byte), make(chan struct{}, 1), make(chan error, 1)
	go func() {
		defer close(lines)
		failed <- readLines(input, lines, ends)
	}()
	for line := range lines {
		var arguments []string
		if err := json.Unmarshal(line, &arguments); err != nil {
			return fmt.Errorf("a line is no array of arguments: %w", err)
		}
		result, err := runCommand(ctx, program, arguments, ends)
		if err != nil {
			return err
		}
		out.print(result)
	}
	return <-failed
}

// readLines passes lines on until there are no more, and says at once when it has read an empty one.
func readLines(input io.Reader, lines chan<- []byte, ends chan<- struct{}) error {
	for reader := bufio.NewReader(input); ; {
		line, err := reader.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(line) == 1:
			ends <- struct{}{}
		default:
			lines <- line
		}
	}
}

func runCommand(ctx context.Context, program string, arguments []string, ends <-chan struct{}) (commandResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var output bytes.Buffer
	command := exec.CommandContext(ctx, program, arguments...)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.Stdout, command.Stderr = &output, os.Stderr
	if err := command.Start(); err != nil {
		return commandResult{}, err
	}
	go func() {
		select {
		case <-ends:
			cancel()
		case <-ctx.Done():
		}
	}()
	_ = command.Wait() // its code says how it ended
	return commandResult{command.ProcessState.ExitCode(), output.String()}, nil
}
