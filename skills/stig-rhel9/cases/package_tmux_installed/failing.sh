#!/bin/bash
! rpm -q --quiet tmux || dnf -y -q remove tmux
