package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
)

// Refusals is state/refusals.json: how many updates the running program had refused when the last commit ended. A
// commit that was refused has put the old files back, and is no reason to distrust the program for ever after.
type Refusals struct {
	Started string         `json:"started"` // which process counted
	Counts  map[string]int `json:"counts"`
}

func refusalsRecord(root string) string { return filepath.Join(root, "state", "refusals.json") }

// noteRefusals makes what was refused so far the base of the next look.
func noteRefusals(root string, program Program) error {
	counts, err := program.Rejections()
	if err != nil {
		return err
	}
	started, err := startOf(processes, "1")
	if err != nil {
		return err
	}
	text, err := json.Marshal(Refusals{started, counts})
	if err != nil {
		return err
	}
	return writeFile(refusalsRecord(root), text)
}

// refusedUpdates lists the resources of which the program has refused an update since the last commit, or since it was
// started: what somebody else has put into hot/, even if it is gone again.
func refusedUpdates(root string, program Program) ([]string, error) {
	counts, err := program.Rejections()
	if err != nil {
		return nil, err
	}
	var before Refusals
	if err := readJSON(refusalsRecord(root), &before); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	started, err := startOf(processes, "1")
	if err != nil {
		return nil, err
	}
	if started != before.Started {
		before.Counts = nil
	}
	found := []string{}
	for resource, count := range counts {
		if count > before.Counts[resource] {
			found = append(found, resource)
		}
	}
	slices.Sort(found)
	return found, nil
}
