"""The report of a run as tables and sentences, for the terminal and for summary.md."""

from typing import Any

from experiments.curves import MIN_WINDOW
from experiments.data import published_curves
from experiments.data.published_curves import PublishedLoss, published_loss
from experiments.long_sequences.report import ROUGHNESS_MEASURE, ratio_of_logs
from experiments.tables import Table, show_interval, show_number
from gated_rnn.statistics import Interval

NOTE = (
    "The height of these losses cannot be compared with the published one: the "
    "author's generator is lost and ours follows its description. The shape of the "
    "curves and the claims can."
)


def report_tables(summary: dict[str, Any], num_seeds: int) -> list[Table]:
    """Lay out the summary.

    Args:
        summary: From `report.summarise`.
        num_seeds: How many seeds were trained, of each cell.

    Returns:
        Loss and cost; if both cells were trained, claims and roughness too.
    """
    tables = [_loss_table(summary, num_seeds), _cost_table(summary)]
    if "claims" in summary:
        tables.append(_claims_table(summary))
        if summary["claims"]["roughness"]:
            tables.append(_roughness_table(summary["claims"]["roughness"]))
    return tables


def report_notes(summary: dict[str, Any]) -> list[str]:
    """Say what the tables leave out.

    Args:
        summary: From `report.summarise`.

    Returns:
        Sentences.
    """
    notes = [NOTE]
    if summary["num_epochs"] < published_curves.NUM_EPOCHS:
        notes.append(
            "In the published figure the LSTM is ahead until about epoch "
            f"{published_curves.CROSSING_EPOCH}; whether the GRU ends lower shows "
            f"after {published_curves.NUM_EPOCHS} epochs (--paper)."
        )
    for cell, facts in summary["cells"].items():
        if len(facts["diverged_seeds"]):
            seeds = ", ".join(str(seed) for seed in facts["diverged_seeds"])
            notes.append(f"{cell.upper()} diverged on seeds {seeds}: left out above.")
    return notes


def _loss_table(summary: dict[str, Any], num_seeds: int) -> Table:
    last = summary["num_epochs"] - 1
    rows = [
        (
            cell.upper(),
            show_interval(facts["first_loss"]),
            show_interval(facts["final_loss"]),
            _show_published(facts["published_loss"]),
        )
        for cell, facts in summary["cells"].items()
    ]
    for name, values in summary["baselines"].items():
        rows.append((name, "", show_number(sum(values) / len(values)), ""))
    seeds = "1 seed" if num_seeds == 1 else f"{num_seeds} seeds"
    title = f"Loss: mean over {seeds} [95 % interval]"
    if summary["final_epochs"] > 1:
        title += f", at the end the median of {summary['final_epochs']} epochs"
    columns = ("", "epoch 0", f"epoch {last}", f"published, epoch {last}")
    return Table(title, columns, rows)


def _cost_table(summary: dict[str, Any]) -> Table:
    rows = []
    for cell, facts in summary["cells"].items():
        seconds = facts["seconds_per_epoch"]
        low, high = (show_number(value) for value in seconds["quartiles"])
        rows.append(
            (
                cell.upper(),
                str(facts["parameters"]["recurrent"]),
                str(facts["parameters"]["total"]),
                f"{show_number(seconds['median'])} ({low} to {high})",
                show_number(facts["seconds_compile"]),
            )
        )
    columns = (
        "",
        "recurrent parameters",
        "all parameters",
        "s per epoch (quartiles)",
        "s to compile",
    )
    return Table("Cost: an epoch is one update of all seeds together", columns, rows)


def _show_published(loss: PublishedLoss | None) -> str:
    return "none" if loss is None else f"{loss.low:.2f} to {loss.high:.2f}"


def _claims_table(summary: dict[str, Any]) -> Table:
    claims = summary["claims"]
    end = published_curves.NUM_EPOCHS
    gru, lstm = (published_loss(cell, end) for cell in ("gru", "lstm"))
    published = sum(gru) / 2 - sum(lstm) / 2
    rows = []
    final = claims["final_loss"]
    rows.append(
        (
            "GRU ends lower (GRU - LSTM)",
            f"{published:.2f} at epoch {end}",
            show_interval(final and final["gru_minus_lstm"].mean),
            final["verdict"] if final else "no seed of both cells is finite",
        )
    )
    rough = claims["roughness"]
    rows.append(
        (
            "GRU runs smoother (roughness GRU / LSTM)",
            "LSTM has much greater volatility",
            show_interval(rough and ratio_of_logs(rough["whole"]["log_gru_over_lstm"])),
            rough["verdict"] if rough else f"not measured below {MIN_WINDOW} epochs",
        )
    )
    time = claims["time"]
    rows.append(
        (
            "GRU trains faster (time GRU / LSTM)",
            f"{published_curves.TIME_RATIO:.3f} (cuDNN)",
            show_interval(time and ratio_of_logs(time["log_gru_over_lstm"])),
            _judge_time(time),
        )
    )
    ratio = claims["parameters"]
    rows.append(
        (
            "GRU has fewer parameters (recurrent ones, GRU / LSTM)",
            "fewer",
            show_number(ratio["recurrent"]),
            "by construction",
        )
    )
    title = (
        f"The text's claims: paired over {claims['paired_seeds']} seeds [95 % interval]"
    )
    return Table(title, ("claim", "text", "here", "verdict"), rows)


def _judge_time(time: dict[str, Any] | None) -> str:
    if time is None:
        return "not measured (--timing-rounds)"
    ratio = ratio_of_logs(time["log_gru_over_lstm"])
    rounds = f"{ratio.num_seeds} rounds in turn"
    if ratio.high < 1:
        return f"faster on this machine, {rounds}"
    if ratio.low > 1:
        return f"slower on this machine, {rounds}"
    return f"no difference shown, {rounds}"


def _roughness_table(rough: dict[str, Any]) -> Table:
    rows = []
    for window in (*rough["windows"], rough["whole"]):
        row = (
            f"{window['start']} to {window['stop'] - 1}",
            _show_percent(window["lstm"]),
            _show_percent(window["gru"]),
            show_interval(ratio_of_logs(window["log_gru_over_lstm"])),
        )
        if row not in rows:  # a short run has one window, the whole
            rows.append(row)
    title = f"Roughness, %: {ROUGHNESS_MEASURE} [95 % interval]"
    return Table(title, ("epochs", "LSTM", "GRU", "GRU / LSTM"), rows)


def _show_percent(interval: Interval) -> str:
    estimate, low, high = (100 * value for value in interval[:3])
    return show_interval(interval._replace(estimate=estimate, low=low, high=high))
