#!/bin/bash
! rpm -q --quiet libreswan || dnf -y -q remove libreswan
