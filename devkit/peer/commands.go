// The verb commands: command lines from standard input, one after another, each in a process of its own.
//
// An engine takes many times as long to start a program in a container as a process in it does. So who has many
// commands for one container starts this program there, once.
package main

import (
	"bufio"
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

// commandResult is what became of one command line.
type commandResult struct {
	Code   int    `json:"code"`
	Output string `json:"output"`
}

const exitSignalled = 128 // and the signal's number, as in a shell

func declareCommands(*flag.FlagSet) action {
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		if err := noArguments(positional); err != nil {
			return false, err
		}
		program, err := os.Executable()
		if err != nil {
			return false, err
		}
		return true, runCommands(ctx, program, os.Stdin, out)
	}
}

// runCommands runs a program with the arguments of each line, a JSON array, until the input ends.
func runCommands(ctx context.Context, program string, input io.Reader, out *printer) error {
	lines := bufio.NewReader(input)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var arguments []string
		if err := json.Unmarshal(line, &arguments); err != nil {
			return fmt.Errorf("a line is no array of arguments: %w", err)
		}
		result, err := runCommand(ctx, program, arguments)
		if err != nil {
			return err
		}
		out.print(result)
	}
}

func runCommand(ctx context.Context, program string, arguments []string) (commandResult, error) {
	command := exec.CommandContext(ctx, program, arguments...)
	command.Stderr = os.Stderr
	output, err := command.Output()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return commandResult{exitDone, string(output)}, nil
	case !errors.As(err, &ended):
		return commandResult{}, err
	}
	code := ended.ExitCode()
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = exitSignalled + int(status.Signal())
	}
	return commandResult{code, string(output)}, nil
}
