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
	"flag"
	"fmt"
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
		lines, ends := make(chan []byte), make(chan struct{}, 1)
		go func() {
			defer close(lines)
			for input := bufio.NewReader(os.Stdin); ; {
				line, err := input.ReadBytes('\n')
				switch {
				case err != nil:
					return
				case len(line) == 1:
					ends <- struct{}{}
				default:
					lines <- line
				}
			}
		}()
		for line := range lines {
			var arguments []string
			if err := json.Unmarshal(line, &arguments); err != nil {
				return false, fmt.Errorf("a line is no array of arguments: %w", err)
			}
			result, err := runCommand(ctx, program, arguments, ends)
			if err != nil {
				return false, err
			}
			out.print(result)
		}
		return true, nil
	}
}

func runCommand(ctx context.Context, program string, arguments []string, ends <-chan struct{}) (commandResult, error) {
	var output bytes.Buffer
	command := exec.CommandContext(ctx, program, arguments...)
	command.Stdout, command.Stderr = &output, os.Stderr
	if err := command.Start(); err != nil {
		return commandResult{}, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = command.Wait() // its code says how it ended
	}()
	select {
	case <-ends:
		_ = command.Process.Signal(syscall.SIGTERM)
	case <-ended:
	}
	<-ended
	return commandResult{command.ProcessState.ExitCode(), output.String()}, nil
}
