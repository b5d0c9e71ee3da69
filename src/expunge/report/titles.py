"""Titles: what findings are called for a person."""

import re

from expunge.report.wording import clip

HEAD = "head"
"""What a finding calls the input of the last layer."""
TITLES = {
    "accuracy/retain": "Accuracy on retained training rows",
    "accuracy/forget": "Accuracy on forgotten training rows",
    "accuracy/retain_test": "Accuracy on retained test rows",
    "accuracy/forget_test": "Accuracy on forgotten test rows",
    "accuracy/worst_retained_class": "Accuracy on the worst retained class",
    "prediction/total_variation/forget_test": "Distance between predictions for forgotten test rows",
    "prediction/total_variation/forget": "Distance between predictions for forgotten training rows",
    "prediction/entropy/forget_test": "Uncertainty on forgotten test rows",
    "prediction/alignment/forget_test": "Likeness of outputs for forgotten test rows",
    "prediction/alignment/forget": "Likeness of outputs for forgotten training rows",
    "prediction/alignment/retain_test": "Likeness of outputs for retained test rows",
    "prediction/churn/retain_test": "Other answers than retrained on retained test rows",
    "membership/entropy/predicted_member": "Taken for training rows, by entropy",
    "membership/confidence/predicted_non_member": "Not taken for training rows, by confidence",
    "membership/loss/accuracy": "Attack on membership by loss, accuracy",
    "membership/loss/auc": "Attack on membership by loss, AUC",
    "membership/loss/tpr_at_1_fpr": "Attack on membership by loss, TPR at 1 % FPR",
    "membership/entropy/auc": "Attack on membership by entropy, AUC",
    "membership/entropy/tpr_at_1_fpr": "Attack on membership by entropy, TPR at 1 % FPR",
    "relearning/steps": "Steps to relearn",
    "relearning/anamnesis_index": "Anamnesis index",
    "relearning/area": "Accuracy while relearning",
    "relearning/area/retain_only": "Accuracy while training on kept rows alone",
    "few_shot/area/1_shots": "Accuracy while relearning from one row, output opened",
    "few_shot/area/5_shots": "Accuracy while relearning from 5 rows, output opened",
    "few_shot/area/10_shots": "Accuracy while relearning from 10 rows, output opened",
    "few_shot/area/50_shots": "Accuracy while relearning from 50 rows, output opened",
    "head_bias/recall_at_1_fpr": "Recall with the output raised, at 1 % false alarms",
    "head_bias/recall_at_5_fpr": "Recall with the output raised, at 5 % false alarms",
    "inversion/plain/original": "Images read out that the original recognises",
    "inversion/prior/original": "Natural images read out that the original recognises",
    "inversion/prior/nearest_mean": "Natural images read out that are nearest to the class",
    "query/auc": "Forgotten rows set apart by answers, AUC",
    "weights/distance": "Distance of the weights from the original",
    "interclass_confusion/memorised": "Manipulated rows that keep the exchanged label",
    "interclass_confusion/generalised": "Test rows of the two classes taken for the other",
    "backdoor/memorised": "Manipulated rows that are called the target",
    "backdoor/success": "Test rows that the patch turns into the target",
    "backdoor/recovered": "Test rows with the patch called by their true label",
    "backdoor/clean_accuracy": "Accuracy on test rows without a patch",
    "canaries/memorised": "Mislabelled rows that keep the wrong label",
    "canaries/recovered": "Mislabelled rows that get their true label",
    "information/total": "What features tell about rows to forget, all layers",
    "information/index": "What features tell about rows to forget, against the original",
    "head/norm": "Size of the last layer's weights for what was forgotten",
    "head/bias": "Constant of the last layer for what was forgotten",
    "head/cosine": "Likeness of the last layer's weights for what was forgotten to others",
    "head/exposed": "Kept classes that stand out less in the last layer",
    "batch_norm/forget_test": "Forgotten test rows, normalisation estimated anew",
    "batch_norm/retain_test": "Retained test rows, normalisation estimated anew",
}
PATTERNS = {
    r"probe/forget_test/(?P<depth>.+)": "Forgotten test rows named by a new layer on {depth}",
    r"probe/retain_test/(?P<depth>.+)": "Retained test rows named by a new layer on {depth}",
    r"probe/nearest_centre/(?P<depth>.+)": "Forgotten test rows nearest to their class, in {depth}",
    r"prototypes/balanced/(?P<shots>\d+)": "Right on forgotten and kept rows, class rebuilt from {shots}",
    r"prototypes/recall/(?P<shots>\d+)": "Forgotten rows named, class rebuilt from {shots}",
    r"similarity/original/(?P<depth>.+)": "Likeness to the original of forgotten rows, in {depth}",
    r"similarity/retrained/(?P<depth>.+)": "Likeness to retrained of forgotten rows, in {depth}",
    r"similarity/retain_test/(?P<depth>.+)": "Likeness to retrained of retained rows, in {depth}",
    r"quantization/int(?P<bits>\d+)/forget_test": "Forgotten test rows, weights rounded to {bits} bits",
    r"quantization/int(?P<bits>\d+)/retain_test": "Retained test rows, weights rounded to {bits} bits",
    r"weight_noise/(?P<share>\d+\.?\d*)/forget_test": "Forgotten test rows, weights shaken by {share}",
    r"weight_noise/(?P<share>\d+\.?\d*)/retain_test": "Retained test rows, weights shaken by {share}",
}
"""By what the name of a finding matches, whole."""
PARTS = {
    "forget_test": "forgotten test rows",
    "retain_test": "retained test rows",
    "forget": "forgotten training rows",
    "retain": "retained training rows",
}


def title(name: str) -> str:
    """Return what a finding is called for a person; one without a known title gets its own name, spelt out."""
    if name in TITLES:
        return TITLES[name]
    for pattern, words in PATTERNS.items():
        if found := re.fullmatch(pattern, name):
            return words.format(**{key: _part(key, text) for key, text in found.groupdict().items()})
    words = clip(name.replace("_", " ").replace("/", " · "), 80)
    return words[:1].upper() + words[1:]


def in_words(text: str) -> str:
    """Return a text in which parts of the data have the names that a person knows them by."""
    for part, words in PARTS.items():
        text = re.sub(rf"\b(of|on|over) {part}\b", rf"\1 {words}", text)
    return text


def _part(key: str, text: str) -> str:
    if key == "share":
        return f"{100 * float(text):g} %"
    if key != "depth":
        return text
    return "what the last layer reads" if text == HEAD else f"layer {clip(text)}"
