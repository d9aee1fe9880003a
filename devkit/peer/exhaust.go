// The verb exhaust: as another user, take all that the kernel gives a user of something.
package main

import (
	"context"
	"flag"
	"os"
	"strconv"
	"syscall"
)

// exhausted is printed when there is no more.
type exhausted struct {
	Event string `json:"event"`
	User  int    `json:"user"`
	Taken int    `json:"taken"` // inotify instances
	Error string `json:"error"` // of the next one
	Files bool   `json:"files"` // whether other files can still be opened: it is not their limit
}

func declareExhaust(flags *flag.FlagSet) action {
	pause := flags.Duration("for", 0, "how long to keep them; until SIGTERM if 0")
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		text, err := oneArgument(positional, "USER")
		if err != nil {
			return false, err
		}
		user, err := strconv.Atoi(text)
		if err != nil {
			return false, usageError(err.Error())
		}
		if err := syscall.Setresuid(user, user, user); err != nil {
			return false, err
		}
		found := exhausted{Event: "exhausted", User: user}
		for {
			file, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
			if err != nil {
				found.Error = err.Error()
				break
			}
			defer syscall.Close(file)
			found.Taken++
		}
		other, err := os.Open("/dev/null")
		if found.Files = err == nil; found.Files {
			other.Close()
		}
		out.print(found)
		if *pause > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, *pause)
			defer cancel()
		}
		<-ctx.Done()
		return true, nil
	}
}
